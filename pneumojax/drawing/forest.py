"""The figures of subgroups, one below the other with their intervals: `subgroups.png`."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from pneumojax.drawing.figures import BLUE, FAINT, GREY, new_figure, style_axes


def draw_forest(groupings: Mapping[str, Any], figures: Mapping[str, str], title: str) -> Figure:
    """Draws a panel for each figure and a line for each group.

    Args:
      groupings: {grouping: {'groups': {group: {'n', 'n_positive', figure: {'value', 'low',
        'high'}}}}}; values of None are left out.
      figures: names of the panels, by figure.
      title: heading.
    """
    lines: list[tuple[str, Mapping[str, Any] | None]] = []
    for grouping, of in groupings.items():
        if of['groups']:
            lines.append((grouping, None))
            lines += [(f'{group}  ({row["n"]:,}, {row["n_positive"]:,} positive)', row)
                      for group, row in of['groups'].items()]  # fmt: skip
    figure = new_figure((10, 1.6 + 0.3 * len(lines)), title)
    panels = figure.subplots(1, len(figures), sharey=True, squeeze=False)[0]
    for axes, (name, label) in zip(panels, figures.items(), strict=True):
        style_axes(axes)
        axes.grid(axis='y', visible=False)
        _points(axes, [row and row[name] for _, row in lines])
        axes.set(xlim=(0, 1.02), ylim=(len(lines) - 0.4, -0.6), xlabel=label)
        axes.tick_params(axis='y', length=0)
    panels[0].set_yticks(range(len(lines)), [words for words, _ in lines], parse_math=False)
    for text, (_, row) in zip(panels[0].get_yticklabels(), lines, strict=True):
        if row is None:
            text.set_fontweight('bold')
    return figure


def _points(axes: Any, values: Sequence[Mapping[str, Any] | None]) -> None:
    for y, value in enumerate(values):
        if value is None:
            continue
        if value['value'] is None:
            axes.text(0.02, y, '–', color=FAINT, fontsize=9, va='center')
            continue
        if value['low'] is not None:
            axes.plot([value['low'], value['high']], [y, y], color=GREY, linewidth=1.6)
        axes.plot(value['value'], y, marker='s', ms=6, color=BLUE)
