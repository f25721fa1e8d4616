"""The table and the picture of an ablation."""

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pneumojax.drawing.figures import BLUE, GREY, ORANGE, new_figure, style_axes

Curves = Mapping[str, list[list[dict[str, Any]]]]  # training -> seeds -> points
SHOWN = (('mean_dice', 'mean Dice'), ('positive_dice', 'Dice, positives'), ('auc', 'AUC'))


def markdown(report: Mapping[str, Any]) -> str:
    """The table as Markdown, with a line on how it was made.

    Args:
      report: of ablation.json.
    """
    head = ' | '.join(f'{label} | all parts minus this' for _, label in SHOWN)
    lines = [f'| | {head} |', '|---|' + '---|' * (2 * len(SHOWN))]
    for row in report['rows']:
        cells = []
        for key, _ in SHOWN:
            cells += [_number(row['figures'][key]), _gap(row['lost'] and row['lost'][key])]
        lines.append(f'| {row["name"]} | ' + ' | '.join(cells) + ' |')
    costs = '; '.join(
        f'{name}: {c["pixels"] / 1e6:.1f} million training pixels, {c["seconds"]:.0f} s'
        for name, c in report['training'].items()
    )
    lines += [
        '',
        f'Means over {len(report["seeds"])} seeds on the same {report["n"]} held-out images, '
        f'{report["n_positive"]} with pneumothorax. Intervals: {report["intervals"]}. Cost of one '
        f'training: {costs}.',
    ]
    return '\n'.join(lines) + '\n'


def table(report: Mapping[str, Any]) -> str:
    """The table as CSV with more digits: one row for each arm and metric."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['part', 'figure', 'value', 'all_minus_this', 'low', 'high', 'by_seed'])
    for row in report['rows']:
        for key, value in row['figures'].items():
            lost = (row['lost'] or {}).get(key) or {}
            ends = [lost.get(k) for k in ('difference', 'low', 'high')]
            by_seed = ' '.join(f'{seed[key]:.4f}' for seed in row['seeds'])
            writer.writerow([row['name'], key, *map(_plain, [value, *ends]), by_seed])
    return text.getvalue()


def draw_ablation(report: Mapping[str, Any], curves: Curves, title: str) -> Figure:
    """Two panels: what each part gains, and how fast the two trainings learn.

    Args:
      report: of ablation.json.
      curves: training -> seeds -> points with 'pixels', 'stage' and 'positive_dice'.
      title: heading.
    """
    heading = f'{title}: {report["n"]} held-out images, {len(report["seeds"])} seeds'
    figure = new_figure((13.5, 4.8), heading)
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        style_axes(axes)
    _parts(left, report)
    _learning(right, curves)
    return figure


def _parts(axes: Axes, report: Mapping[str, Any]) -> None:
    rows = [row for row in report['rows'] if row['lost']]
    for number, (key, label) in enumerate(SHOWN[:2]):
        colour, shift = (BLUE, ORANGE)[number], (0.13, -0.13)[number]
        for place, row in enumerate(reversed(rows)):
            gap = row['lost'][key]
            if gap['difference'] is None:
                continue
            axes.plot([gap['low'], gap['high']], [place + shift] * 2, color=colour, linewidth=2)
            axes.plot(
                gap['difference'], place + shift, 'o', color=colour, ms=6,
                label=label if place == 0 else None,
            )  # fmt: skip
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(rows)), [_wrapped(row['name']) for row in reversed(rows)])
    axes.set(ylim=(-0.6, len(rows) - 0.4), xlabel='lost without it (95 % interval)')
    axes.set_title('What each part gains')
    axes.legend(fontsize=9, frameon=False, loc='best')


def _learning(axes: Axes, curves: Curves) -> None:
    for colour, (training, seeds) in zip((BLUE, ORANGE), curves.items(), strict=False):
        stages = {point['stage'] for points in seeds for point in points}
        ends = None
        for stage in sorted(stages):
            lines = []
            for points in seeds:
                mine = [p for p in points if p['stage'] == stage and p['positive_dice'] is not None]
                x = [p['pixels'] / 1e6 for p in mine]
                lines.append((x, [p['positive_dice'] for p in mine]))
                axes.plot(*lines[-1], color=colour, linewidth=0.7, alpha=0.35)
            length = min(len(x) for x, _ in lines)
            x, y = (np.mean([line[i][:length] for line in lines], axis=0) for i in (0, 1))
            style = ':' if len(stages) > 1 and stage < max(stages) else '-'
            label = training if stage == max(stages) else f'{training}: earlier stage'
            axes.plot(x, y, color=colour, linewidth=2.2, linestyle=style, label=label)
            if ends is not None and len(x):
                axes.plot([ends[0], x[0]], [ends[1], y[0]], color=colour, linewidth=0.8, ls='--')
            ends = (x[-1], y[-1]) if len(x) else ends
    axes.set(xlabel='training pixels, millions (cost)', ylabel='Dice on positives, validation')
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_title('Learning: last weights, threshold 0.5, at the size of the stage')
    axes.legend(fontsize=9, frameon=False, loc='lower right')


def _wrapped(name: str) -> str:
    words = name.split(' ')
    half = len(words) // 2 + len(words) % 2
    return name if len(name) < 20 else ' '.join(words[:half]) + '\n' + ' '.join(words[half:])


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'


def _gap(gap: Mapping[str, float | None] | None) -> str:
    if not gap or gap['difference'] is None:
        return ''
    return f'{gap["difference"]:+.3f} ({gap["low"]:+.3f} to {gap["high"]:+.3f})'


def _plain(value: float | None) -> str:
    return '' if value is None else f'{value:.6f}'
