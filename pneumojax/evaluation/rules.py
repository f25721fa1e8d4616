"""From probabilities to masks: the rules.

One convention everywhere: a probability reaches the threshold k / BINS when `quantize` puts it into
bin k or above. That is `probability >= threshold`, give or take 4e-7 of it.
"""

import dataclasses
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

BINS = 1000
REFERENCE_PIXELS = 1024 * 1024


@dataclasses.dataclass(frozen=True)
class Rule:
    """An image is empty unless `area` pixels reach `top`; then all that reach `bottom` are marked.

    This is the triplet rule of sneddy, winner of SIIM-ACR Pneumothorax Segmentation. With
    top == bottom it is the single threshold with a minimum area of the 2ST-UNet authors' later
    code. The area counts all pixels of the image together; `region` then drops small connected
    regions, as sneddy did at 100 px.

    Attributes:
      top: threshold in [0.001, 0.999], a multiple of 0.001.
      area: pixels at `reference_pixels`; for an image of H x W it is scaled by
        H * W / reference_pixels, so one rule serves every resolution.
      bottom: threshold in [0.001, top], a multiple of 0.001.
      reference_pixels: pixels of the image size at which `area` and `region` are stated.
      region: connected regions (8 neighbours) of fewer pixels are dropped; 0 drops none.

    Raises:
      ValueError: a value is outside its range.
    """

    top: float
    area: int
    bottom: float
    reference_pixels: int = REFERENCE_PIXELS
    region: int = 0

    def __post_init__(self) -> None:
        # A rule may come from a damaged file: larger numbers would overflow.
        if not all(abs(n) < 1 << 40 for n in dataclasses.astuple(self)):
            raise ValueError(f'expected numbers: {self}')
        if not 1 <= bin_of(self.bottom) <= bin_of(self.top) < BINS:
            raise ValueError(f'thresholds need 0 < bottom <= top < 1: {self}')
        whole = all(n >= 0 and n == int(n) for n in (self.area, self.region))
        reference = self.reference_pixels
        if not whole or reference < 1 or reference != int(reference):
            raise ValueError(f'area and region must be whole numbers of pixels, 0 or more: {self}')

    @property
    def marks_nothing(self) -> bool:
        """Whether every image is left empty, as none has as many pixels as `area`."""
        return self.area > self.reference_pixels


def bin_of(threshold: float) -> int:
    """The first bin that reaches a threshold.

    Raises:
      ValueError: the threshold lies between two bins.
    """
    k = round(float(threshold) * BINS)
    if abs(k - threshold * BINS) > 1e-6:
        raise ValueError(f'threshold {threshold} is not a multiple of {1 / BINS}')
    return k


AUTHORS = Rule(0.73, 2048, 0.73)  # the 2ST-UNet authors' code, released after the paper
SNEDDY = Rule(0.7, 800, 0.3)  # final submission; it also dropped contours of 100 px or less


def quantize(probability: ArrayLike) -> np.ndarray:
    """Bin of each probability: floor(p * BINS) in float32, with p == 1 in the last bin.

    Args:
      probability: any shape, in [0, 1].

    Returns:
      uint16 array of the same shape, 0 to BINS - 1.

    Raises:
      ValueError: a value is NaN or not a probability (logits?).
    """
    probability = np.asarray(probability, np.float32)
    # Interpolation overshoots by a rounding error. Anything beyond that is the caller's mistake.
    if probability.size and not (probability.min() >= -1e-5 and probability.max() <= 1 + 1e-5):
        raise ValueError('probabilities must lie in [0, 1]; logits or NaN given?')
    # Slightly more than BINS: the float32 nearest to k / BINS may lie below it, but is in bin k.
    scaled = probability * np.float32(BINS * (1 + 2e-7))
    return np.clip(scaled, 0, BINS - 1).astype(np.uint16)


def apply(rule: Rule, probability: ArrayLike) -> np.ndarray:
    """The mask that a rule makes of an image's probabilities.

    Args:
      rule: see `Rule`; its area is scaled to this image.
      probability: [H, W] in [0, 1], at the original size.

    Returns:
      uint8 0/1 [H, W].
    """
    bins = quantize(probability)
    return mask(rule, bins >= bin_of(rule.top), bins >= bin_of(rule.bottom))


def mask(rule: Rule, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """The mask that a rule makes of the pixels that reach its thresholds.

    Args:
      rule: only its areas are read.
      top, bottom: bool [H, W], at the original size: the pixels that reach each of them.

    Returns:
      uint8 0/1 [H, W].
    """
    found = np.count_nonzero(top)
    if not large_enough(found, top.size, rule.area, rule.reference_pixels):
        return np.zeros(top.shape, np.uint8)
    marked = bottom.astype(np.uint8)
    if not rule.region:
        return marked
    labels, sizes = connected_regions(marked)
    kept = large_enough(sizes, top.size, rule.region, rule.reference_pixels)
    kept[0] = False  # the background
    return kept[labels].astype(np.uint8)


def large_enough(found: Any, pixels: Any, area: Any, reference_pixels: int) -> Any:
    """Whether `found` pixels in an image of `pixels` reach an area stated at the reference size.

    Whole numbers or arrays of them, which broadcast: rounding never decides about an image.
    """
    return found * reference_pixels >= area * pixels


def connected_regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected regions of a uint8 mask: (labels int32 [H, W], pixels of each label int64).

    Label 0 is the background.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return labels, stats[:, cv2.CC_STAT_AREA].astype(np.int64)
