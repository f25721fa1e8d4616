"""Percentile bootstrap over patients: images of one patient are not independent."""

from collections.abc import Iterator, Sequence

import numpy as np

SAMPLES = 2000


def resamples(
    rng: np.random.Generator, patients: Sequence[str], samples: int
) -> Iterator[np.ndarray]:
    """Resamples of whole patients, as weights of their images.

    Args:
      rng: draws the patients.
      patients: [N], the patient of each image.
      samples: how many resamples.

    Yields:
      float64 [<=100, N]: how often each image is in each resample.
    """
    groups = np.unique(patients, return_inverse=True)[1]
    count = groups.max() + 1
    for start in range(0, samples, 100):  # all at once would take gigabytes for 12,000 images
        rows = min(100, samples - start)
        drawn = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        yield times[:, groups].astype(np.float64)


def interval(value: float, drawn: np.ndarray) -> tuple[float | None, float | None]:
    """95 % percentile interval of a metric.

    Args:
      value: of the metric on all images; NaN where it is undefined.
      drawn: float64 [S], its values on resamples. Those where it is undefined (NaN), such as a
        resample without a positive image, are left out.

    Returns:
      (low, high); None for both where the metric is undefined. Like every percentile bootstrap, a
      share of exactly 0 or 1 gets an interval of width 0, see `proportions` for another.
    """
    drawn = drawn[np.isfinite(drawn)]
    if not drawn.size or not np.isfinite(value):
        return None, None
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
