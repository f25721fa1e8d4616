"""The FROC curve of lesions: `froc.png`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from pneumojax.drawing.figures import BLUE, GREY, new_figure, style_axes

_FEWEST, _MOST = 1 / 12, 12  # false marks an image, the ends of the logarithmic axis


def draw_froc(
    false_marks: Sequence[float] | np.ndarray,
    detection: Sequence[float | None] | np.ndarray,
    points: Sequence[Mapping[str, Any]],
) -> Figure:
    """Draws the share of lesions found against false marks an image, with intervals.

    Args:
      false_marks: [K] mean false marks an image, rising as marks of less confidence count.
      detection: [K] share of true lesions found with them; None throughout without a lesion.
      points: where the curve is read, each with 'false_marks', 'value', 'low' and 'high'; the last
        three are None where undefined.
    """
    figure = new_figure((5.6, 4.8), 'Lesions found by false marks (FROC)')
    axes = figure.subplots()
    style_axes(axes)
    axes.set(
        xscale='log', xlim=(_FEWEST, _MOST), ylim=(0, 1.02),
        xlabel='false marks an image', ylabel='share of lesions found',
    )  # fmt: skip
    known = [point for point in points if point['value'] is not None]
    rates = [point['false_marks'] for point in points]
    axes.xaxis.set_major_locator(FixedLocator(rates))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f'1/{1 / rate:.0f}' if rate < 1 else f'{rate:g}' for rate in rates])
    if not known:
        axes.text(0.5, 0.5, 'no true lesion', transform=axes.transAxes, color=GREY, ha='center')
        return figure
    # The curve ends with the last mark; from there no more lesions are found.
    alarms, hits = np.asarray(false_marks, float), np.asarray(detection, float)
    alarms, hits = np.append(alarms, _MOST), np.append(hits, hits[-1:])
    axes.step(np.maximum(alarms, _FEWEST), hits, where='post', color=BLUE, linewidth=2)
    if alarms[-2] < _MOST:
        end = max(alarms[-2], _FEWEST)
        axes.axvline(end, color=GREY, linewidth=1, linestyle=':', label='all marks count')
    bounded = [point for point in known if point['low'] is not None]
    if bounded:
        value, low, high = (
            np.array([point[key] for point in bounded]) for key in ('value', 'low', 'high')
        )
        axes.errorbar(
            [point['false_marks'] for point in bounded], value,
            # A percentile interval may leave its value out by a rounding error.
            np.maximum([value - low, high - value], 0),
            fmt='o', color=BLUE, ms=4, capsize=3, label='95 % interval over patients',
        )  # fmt: skip
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, loc='lower right')
    return figure
