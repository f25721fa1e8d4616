"""The reliability diagram of pixel probabilities: `calibration.png`."""

import numpy as np
from matplotlib.figure import Figure

from pneumojax.drawing.figures import BLUE, GREY, new_figure, style_axes

_FEWEST = 100  # pixels in a group that is drawn


def draw_calibration(groups: tuple[np.ndarray, np.ndarray, np.ndarray], error: float) -> Figure:
    """Draws the reliability curve over the number of pixels behind it.

    Args:
      groups: (mean probability, share inside the true mask, pixels) of each group of
        probabilities, see `pneumojax.evaluation.calibration.reliability`.
      error: expected calibration error, named in the legend.
    """
    mean, share, pixels = groups
    drawn = pixels >= _FEWEST
    figure = new_figure((5.6, 6.4), 'Calibration of pixel probabilities')
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    for axes in (curve, counts):
        style_axes(axes)
    curve.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle='--', label='perfect')
    label = f'this run (expected error {error:.4f})'
    curve.plot(mean[drawn], share[drawn], color=BLUE, linewidth=2, marker='o', ms=4, label=label)
    curve.set(xlim=(0, 1), ylim=(0, 1.02), ylabel='share inside the true mask')
    curve.legend(frameon=False, fontsize=9, loc='upper left')
    edges = np.arange(len(pixels)) / len(pixels)
    counts.bar(edges, np.maximum(pixels, 0.5), width=1 / len(pixels), align='edge', color=BLUE)
    counts.set(yscale='log', xlabel='probability of the pixel', ylabel='pixels')
    return figure
