"""Calibration: whether 3 of 10 pixels with a probability of 0.3 are inside a lesion."""

import numpy as np

GROUPS = 20


def reliability(
    histogram: np.ndarray, groups: int = GROUPS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reliability of pixel probabilities.

    Args:
      histogram: int [2, BINS], pixels outside (0) and inside (1) the true masks per bin of
        probability, summed over images; see `counts.pixel_histogram`.
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
    mean, share, pixels = reliability(histogram, groups)
    known = pixels > 0
    return float(np.average(np.abs(mean - share)[known], weights=pixels[known]))
