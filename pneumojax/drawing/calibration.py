"""Whether pixels that were given a probability of 0.3 lie in a lesion three times in ten."""

import os

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pneumojax.drawing.curves import BLUE, GREY
from pneumojax.drawing.overlay import write_png

GROUPS = 20
_FEWEST = 100  # pixels in a group that is drawn


def calibration(histogram: np.ndarray, groups: int = GROUPS) -> tuple[np.ndarray, ...]:
    """Reliability of pixel probabilities.

    Args:
      histogram: int [2, BINS], pixels outside (0) and inside (1) the true masks per bin of
        probability, summed over images.
      groups: of bins; BINS is a multiple of it.

    Returns:
      (mean probability, share inside the true mask, pixels), [groups] each; NaN without pixels.
    """
    bins = histogram.shape[1]
    centres = (np.arange(bins) + 0.5) / bins
    parts = histogram.reshape(2, groups, -1).astype(np.float64)
    pixels = parts.sum(axis=(0, 2))
    with np.errstate(invalid='ignore'):
        mean = (parts.sum(axis=0) * centres.reshape(groups, -1)).sum(axis=1) / pixels
        share = parts[1].sum(axis=1) / pixels
    return mean, share, pixels.astype(np.int64)


def expected_error(histogram: np.ndarray, groups: int = GROUPS) -> float:
    """Mean of |probability - share inside|, weighted by pixels (Naeini et al., AAAI 2015)."""
    mean, share, pixels = calibration(histogram, groups)
    known = pixels > 0
    return float(np.average(np.abs(mean - share)[known], weights=pixels[known]))


def write_calibration(path: str | os.PathLike, histogram: np.ndarray, title: str = '') -> None:
    """Draws the reliability curve over the number of pixels behind it.

    Args:
      path: of the PNG.
      histogram: see `calibration`.
      title: heading.
    """
    mean, share, pixels = calibration(histogram)
    drawn = pixels >= _FEWEST
    figure = Figure(figsize=(5.6, 6.4), dpi=120, layout='constrained', facecolor='white')
    figure.suptitle(title or 'Calibration of pixel probabilities', fontsize=12, fontweight='bold')
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    curve.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle='--', label='perfect')
    label = f'this run (expected error {expected_error(histogram):.4f})'
    curve.plot(mean[drawn], share[drawn], color=BLUE, linewidth=2, marker='o', ms=4, label=label)
    curve.set(xlim=(0, 1), ylim=(0, 1.02), ylabel='share inside the true mask')
    curve.legend(frameon=False, fontsize=9, loc='upper left')
    edges = np.arange(len(pixels)) / len(pixels)
    counts.bar(edges, np.maximum(pixels, 0.5), width=1 / len(pixels), align='edge', color=BLUE)
    counts.set(yscale='log', xlabel='probability of the pixel', ylabel='pixels')
    for axes in (curve, counts):
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(color='#e6e6e6', linewidth=0.8)
        axes.set_axisbelow(True)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    write_png(path, np.asarray(canvas.buffer_rgba())[..., :3])
