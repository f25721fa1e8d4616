"""From probabilities to masks: the rules, and what is kept of an image to judge them without it.

Everything is judged at the image's original size, against the official mask. Each image is kept as
a histogram of its probabilities inside and outside the true mask: any rule's Dice is then exact
arithmetic on counts, so tens of thousands of rules are compared without touching a pixel. Rules
that drop small regions need more, `region_table`, which is exact too, at the values it is made for.

One convention everywhere: a probability reaches the threshold k / BINS when `quantize` puts it into
bin k or above. That is `probability >= threshold`, give or take 4e-7 of it.
"""

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

BINS = 1000
REFERENCE_PIXELS = 1024 * 1024


def edge(threshold: float) -> int:
    """The bin that a threshold begins. ValueError where it lies between two bins."""
    k = round(float(threshold) * BINS)
    if abs(k - threshold * BINS) > 1e-6:
        raise ValueError(f'threshold {threshold} is not a multiple of {1 / BINS}')
    return k


@dataclass(frozen=True)
class Rule:
    """Empty when fewer than `area` pixels reach `top`, else every pixel that reaches `bottom`.

    The triplet rule of sneddy, winner of SIIM-ACR Pneumothorax Segmentation; top == bottom is the
    single threshold with a minimum area of the 2ST-UNet authors' later code. The area counts all
    pixels of the image together; `region` then drops what is connected, but small (sneddy did at
    100 px).

    Attributes:
      top: threshold in [0.001, 0.999], a multiple of 0.001.
      area: pixels at `reference_pixels`; for an image of H x W it is scaled by
        H * W / reference_pixels, so one rule serves every resolution.
      bottom: threshold in [0.001, top], a multiple of 0.001.
      reference_pixels: pixels of the image size in which `area` and `region` are stated.
      region: connected regions (8 neighbours) of fewer pixels are left out of the mask; 0: none.
    """

    top: float
    area: int
    bottom: float
    reference_pixels: int = REFERENCE_PIXELS
    region: int = 0

    def __post_init__(self):
        # A rule may come from a damaged file: with numbers beyond these, arithmetic would overflow.
        if not all(abs(n) < 1 << 40 for n in dataclasses.astuple(self)):
            raise ValueError(f'expected numbers: {self}')
        if not 1 <= edge(self.bottom) <= edge(self.top) < BINS:
            raise ValueError(f'thresholds need 0 < bottom <= top < 1: {self}')
        whole = all(n >= 0 and n == int(n) for n in (self.area, self.region))
        reference = self.reference_pixels
        if not whole or reference < 1 or reference != int(reference):
            raise ValueError(f'area and region are whole numbers of pixels, 0 or more: {self}')


AUTHORS = Rule(0.73, 2048, 0.73)  # their released code after the paper; area at 1024 as used there
SNEDDY = Rule(0.7, 800, 0.3)  # final submission; it also dropped contours of 100 px or less


def quantize(probability) -> np.ndarray:
    """Bin of each probability: floor(p * BINS) in float32, with p == 1 in the last bin.

    Args:
      probability: any shape, in [0, 1].

    Returns:
      uint16 array of the same shape, 0 to BINS - 1.

    Raises:
      ValueError: a value is NaN or not a probability (logits?).
    """
    probability = np.asarray(probability, np.float32)
    # Interpolation overshoots by a rounding error; more is a mistake of the caller.
    if probability.size and not (probability.min() >= -1e-5 and probability.max() <= 1 + 1e-5):
        raise ValueError('probabilities must lie in [0, 1]; logits or NaN given?')
    # A trifle more than BINS: the float32 next to k / BINS may lie below it, and belongs in bin k.
    scaled = probability * np.float32(BINS * (1 + 2e-7))
    return np.clip(scaled, 0, BINS - 1).astype(np.uint16)


def pixel_histogram(probability, mask) -> np.ndarray:
    """All that any rule's Dice depends on, for one image.

    Args:
      probability: [H, W] float, in [0, 1], at the mask's size.
      mask: [H, W] any dtype, nonzero inside the true lesion.

    Returns:
      int32 [2, BINS]: pixels per probability bin, outside (0) and inside (1) the true mask.

    Raises:
      ValueError: the shapes differ, or the values are no probabilities.
    """
    mask = np.asarray(mask)
    if mask.shape != np.shape(probability):
        raise ValueError(f'probability {np.shape(probability)} and mask {mask.shape} differ')
    bins = quantize(probability)
    everywhere = np.bincount(bins.ravel(), minlength=BINS)
    inside = np.bincount(bins[mask != 0], minlength=BINS)
    return np.stack([everywhere - inside, inside]).astype(np.int32)


def apply(rule: Rule, probability) -> np.ndarray:
    """The mask that a rule makes of an image's probabilities.

    Args:
      rule: see `Rule`; its area is scaled to this image.
      probability: [H, W] in [0, 1], at the original size.

    Returns:
      uint8 0/1 [H, W].
    """
    bins = quantize(probability)
    found = np.count_nonzero(bins >= edge(rule.top))
    if not large_enough(found, bins.size, rule.area, rule.reference_pixels):
        return np.zeros(bins.shape, np.uint8)
    mask = (bins >= edge(rule.bottom)).astype(np.uint8)
    if not rule.region:
        return mask
    labels, sizes = _regions(mask)
    kept = large_enough(sizes, bins.size, rule.region, rule.reference_pixels)
    kept[0] = False  # the background
    return kept[labels].astype(np.uint8)


def large_enough(found, pixels, area, reference_pixels):
    """Whether pixels found are as many as an area stated at the reference size; broadcasts."""
    # Whole numbers on both sides: no rounding decides about an image.
    return found * reference_pixels >= area * pixels


# Where rules that drop regions are tried: what the table below is kept for.
REGION_BOTTOMS = tuple(k / 10 for k in range(1, 10))
REGIONS = (50, 100, 200, 400, 800)


def region_table(
    probability, mask, bottoms=REGION_BOTTOMS, regions=REGIONS, reference_pixels=REFERENCE_PIXELS
) -> np.ndarray:
    """What rules with `region` leave of one image.

    Args:
      probability, mask: as for `pixel_histogram`.
      bottoms: [B] thresholds, rising.
      regions: [R] areas in pixels at `reference_pixels`.
      reference_pixels: see `Rule`.

    Returns:
      int32 [B, R, 2]: pixels outside (0) and inside (1) the true mask that reach each bottom and
      lie in a connected region of at least each area.
    """
    bins, inside = quantize(probability), np.asarray(mask) != 0
    areas = np.asarray(regions, np.int64) * bins.size
    table = np.zeros((len(bottoms), len(regions), 2), np.int32)
    for b, bottom in enumerate(bottoms):
        reached = bins >= edge(bottom)
        rows = np.flatnonzero(reached.any(axis=1))
        if not len(rows):
            break
        columns = np.flatnonzero(reached.any(axis=0))
        # Higher bottoms are reached inside this rectangle alone: most images leave little to label.
        crop = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        bins, inside = bins[crop], inside[crop]
        labels, sizes = _regions(reached[crop].view(np.uint8))
        hits = np.bincount(labels[inside], minlength=len(sizes))
        kept = sizes[1:, None] * reference_pixels >= areas
        table[b, :, 1] = hits[1:] @ kept
        table[b, :, 0] = sizes[1:] @ kept - table[b, :, 1]
    return table


def _regions(mask):
    """(labels int32 [H, W], pixels of each label int64), 0 the background."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return labels, stats[:, cv2.CC_STAT_AREA].astype(np.int64)
