"""What is kept of each image, so that any rule is scored without its pixels.

Everything is scored at the image's original size, against the official mask. Each image is kept as
a histogram of its probabilities inside and outside the true mask. The Dice of any rule is then
exact arithmetic on counts, and tens of thousands of rules are compared in seconds. Rules that drop
small regions also need `region_table`, which is exact at the thresholds and areas it is made for.
"""

import dataclasses
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from pneumojax.evaluation.rules import (
    BINS,
    REFERENCE_PIXELS,
    bin_of,
    connected_regions,
    large_enough,
    quantize,
)

# Where rules that drop regions are tried.
REGION_BOTTOMS = tuple(k / 10 for k in range(1, 10))  # rising
REGIONS = (50, 100, 200, 400, 800)


@dataclasses.dataclass(frozen=True)
class PixelCounts:
    """All that the Dice of any rule depends on, for N images.

    Attributes:
      histograms: int32 [N, 2, BINS], see `pixel_histogram`.
      pixels: int64 [N], height times width of the original.
      regions: int32 [N, B, R, 2], see `region_table`; only rules with `region` need it.
      patients: int [N], a number for the patient of each; only risk control needs it.

    Raises:
      ValueError: the shapes do not agree.
    """

    histograms: np.ndarray
    pixels: np.ndarray
    regions: np.ndarray | None = None
    patients: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.histograms.shape != (len(self.pixels), 2, BINS):
            raise ValueError(
                f'histograms [N, 2, {BINS}] and pixels [N] expected, '
                f'got {self.histograms.shape} and {self.pixels.shape}'
            )

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def true_px(self) -> np.ndarray:
        """int64 [N]: pixels of the true mask."""
        return self.histograms[:, 1].sum(axis=1)

    def take(self, images: ArrayLike) -> Self:
        """Some of the images, by index or by a bool for each."""
        columns: dict[str, Any] = {
            name: None if column is None else column[images] for name, column in vars(self).items()
        }
        return type(self)(**columns)


def pixel_histogram(probability: ArrayLike, mask: ArrayLike) -> np.ndarray:
    """Pixels of one image by probability and truth.

    Args:
      probability: [H, W] float in [0, 1], at the mask's size.
      mask: [H, W] any dtype, nonzero inside the true lesion.

    Returns:
      int32 [2, BINS]: pixels per probability bin, outside (0) and inside (1) the true mask.

    Raises:
      ValueError: the shapes differ, or the values are not probabilities.
    """
    mask = np.asarray(mask)
    if mask.shape != np.shape(probability):
        raise ValueError(f'probability {np.shape(probability)} and mask {mask.shape} differ')
    bins = quantize(probability)
    everywhere = np.bincount(bins.ravel(), minlength=BINS)
    inside = np.bincount(bins[mask != 0], minlength=BINS)
    return np.stack([everywhere - inside, inside]).astype(np.int32)


def region_table(
    probability: ArrayLike, mask: ArrayLike, reference_pixels: int = REFERENCE_PIXELS
) -> np.ndarray:
    """What rules with `region` leave of one image.

    Args:
      probability, mask: as for `pixel_histogram`.
      reference_pixels: see `Rule`.

    Returns:
      int32 [B, R, 2]: pixels outside (0) and inside (1) the true mask that reach each of
      `REGION_BOTTOMS` and are in a connected region of at least each of `REGIONS`.
    """
    bins, inside = quantize(probability), np.asarray(mask) != 0
    pixels, areas = bins.size, np.array(REGIONS)
    table = np.zeros((len(REGION_BOTTOMS), len(REGIONS), 2), np.int32)
    for b, bottom in enumerate(REGION_BOTTOMS):
        reached = bins >= bin_of(bottom)
        rows = np.flatnonzero(reached.any(axis=1))
        if not len(rows):
            break
        columns = np.flatnonzero(reached.any(axis=0))
        # Higher bottoms are reached inside this rectangle only, and most images leave little of it.
        crop = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        bins, inside = bins[crop], inside[crop]
        labels, sizes = connected_regions(reached[crop].view(np.uint8))
        hits = np.bincount(labels[inside], minlength=len(sizes))
        kept = large_enough(sizes[1:, None], pixels, areas, reference_pixels)
        table[b, :, 1] = hits[1:] @ kept
        table[b, :, 0] = sizes[1:] @ kept - table[b, :, 1]
    return table
