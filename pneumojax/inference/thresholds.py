"""From probabilities to masks: the rules, and choosing them by the competition's Dice.

Everything is judged at the image's original size, against the official mask. Each image is kept as
a histogram of its probabilities inside and outside the true mask: any rule's Dice is then exact
arithmetic on counts, so tens of thousands of rules are compared without touching a pixel.

One convention everywhere: a probability reaches the threshold k / BINS when `quantize` puts it into
bin k or above. That is `probability >= threshold`, give or take 4e-7 of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

BINS = 1000
REFERENCE_PIXELS = 1024 * 1024
Kind = Literal['single', 'triplet']


def _edge(threshold):
    edge = round(float(threshold) * BINS)
    if abs(edge - threshold * BINS) > 1e-6:
        raise ValueError(f'threshold {threshold} is not a multiple of {1 / BINS}')
    return edge


@dataclass(frozen=True)
class Rule:
    """Empty when fewer than `area` pixels reach `top`, else every pixel that reaches `bottom`.

    The triplet rule of sneddy, winner of SIIM-ACR Pneumothorax Segmentation; top == bottom is the
    single threshold with a minimum area of the 2ST-UNet authors' later code. The area counts all
    pixels of the image together, not a connected region.

    Attributes:
      top: threshold in [0.001, 0.999], a multiple of 0.001.
      area: pixels at `reference_pixels`; for an image of H x W it is scaled by
        H * W / reference_pixels, so one rule serves every resolution.
      bottom: threshold in [0.001, top], a multiple of 0.001.
      reference_pixels: pixels of the image size in which `area` is stated.
    """

    top: float
    area: int
    bottom: float
    reference_pixels: int = REFERENCE_PIXELS

    def __post_init__(self):
        if not 1 <= _edge(self.bottom) <= _edge(self.top) < BINS:
            raise ValueError(f'thresholds need 0 < bottom <= top < 1: {self}')
        if self.area < 0 or self.area != int(self.area) or self.reference_pixels < 1:
            raise ValueError(f'area must be a whole number of pixels, 0 or more: {self}')


AUTHORS = Rule(0.73, 2048, 0.73)  # their released code after the paper; area at 1024 as used there
SNEDDY = Rule(0.7, 800, 0.3)  # final submission; it also dropped contours of 100 px or less

# Fine thresholds cost nothing; areas from no rule at all to a large lesion (SIIM's q90 is 32,219).
TOPS = tuple(k / 100 for k in range(5, 100))
AREAS = (
    *(0, 50, 100, 200, 300, 400, 600, 800, 1000, 1250, 1500, 1750, 2000, 2048, 2500, 3000),
    *(3500, 4000, 5000, 6000, 8000, 10_000, 14_000, 20_000, 30_000),
)
BOTTOMS = tuple(k / 20 for k in range(1, 20))


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
    found = np.count_nonzero(bins >= _edge(rule.top))
    if not _large_enough(found, bins.size, rule.area, rule.reference_pixels):
        return np.zeros(bins.shape, np.uint8)
    return (bins >= _edge(rule.bottom)).astype(np.uint8)


def dice_per_image(histograms, pixels, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Dice of every image under one rule: what `apply` and `metrics.dice` give, without pixels.

    Args:
      histograms: int [N, 2, BINS], see `pixel_histogram`.
      pixels: [N] height times width of each image.
      rule: the rule.

    Returns:
      (Dice float64 [N], pixels in the predicted mask int64 [N]).
    """
    counts = _Counts(histograms, pixels)
    kept = counts.large_enough(rule.top, [rule.area], rule.reference_pixels)[:, 0]
    score = np.where(kept, counts.dice([rule.bottom])[:, 0], counts.empty_dice)
    return score, np.where(kept, counts.reaching([rule.bottom]).sum(axis=1)[:, 0], 0)


def search(
    histograms,
    pixels,
    *,
    kind: Kind = 'triplet',
    tops: Sequence[float] = TOPS,
    areas: Sequence[int] = AREAS,
    bottoms: Sequence[float] = BOTTOMS,
    reference_pixels: int = REFERENCE_PIXELS,
) -> tuple[Rule, float]:
    """The rule of a grid with the best mean competition Dice.

    Equally good rules are common (areas between two lesions' sizes all do the same): of these the
    one nearest to the middle of the tied rules is taken, in steps of the grid, as the least likely
    to fail on other images; then the larger area, top and bottom.

    Args:
      histograms: int [N, 2, BINS] of validation images, see `pixel_histogram`.
      pixels: [N] height times width of each image.
      kind: 'triplet' tries tops x areas x bottoms with bottom <= top; 'single' tries tops x areas
        with bottom = top and ignores `bottoms`.
      tops: thresholds that decide whether there is a lesion.
      areas: pixels at `reference_pixels`.
      bottoms: thresholds of the mask's outline.
      reference_pixels: see `Rule`.

    Returns:
      (rule, its mean Dice on these images: optimistic, see `cross_fit`).

    Raises:
      ValueError: no images or no rule to try.
    """
    if kind not in ('single', 'triplet'):
        raise ValueError(f"kind must be 'single' or 'triplet', not {kind!r}")
    counts = _Counts(histograms, pixels)
    if not len(counts.true_px):
        raise ValueError('no images to choose a rule on')
    # Mean Dice = mean(empty) + mean(large enough * (Dice - empty)): one matrix product per top.
    empty = counts.empty_dice
    gain = counts.dice(tops if kind == 'single' else bottoms) - empty[:, None]
    tried, scores = [], []
    for t, top in enumerate(tops):
        if kind == 'single':
            below = [t]
        else:
            below = [b for b, bottom in enumerate(bottoms) if _edge(bottom) <= _edge(top)]
        kept = counts.large_enough(top, areas, reference_pixels).astype(np.float64)
        scores.append((empty.mean() + kept.T @ gain[:, below] / len(empty)).ravel())
        tried += [(t, a, b) for a in range(len(areas)) for b in below]
    scores = np.concatenate(scores) if tried else np.empty(0)
    if not len(scores):
        raise ValueError('no rule to try: the grid has no bottom <= top')

    best = scores.max()
    tied = [tried[i] for i in np.flatnonzero(scores > best - 1e-9)]
    middle = np.mean(tied, axis=0)
    t, a, b = min(
        tied,
        key=lambda index: (round(float(((index - middle) ** 2).sum()), 6), *(-i for i in index)),
    )
    bottom = tops[t] if kind == 'single' else bottoms[b]
    return Rule(float(tops[t]), int(areas[a]), float(bottom), reference_pixels), float(best)


class CrossFit(NamedTuple):
    """Scores of images under rules that were not chosen on them."""

    dice: np.ndarray  # float64 [N]
    predicted_px: np.ndarray  # int64 [N]
    part: np.ndarray  # int [N], which part the image is in
    rules: tuple[Rule, ...]  # rules[p] was chosen on the other parts and applied to part p


def cross_fit(histograms, pixels, part, *, kind: Kind = 'triplet', **grid) -> CrossFit:
    """Measures thresholding honestly: each part with the rule that the other parts choose.

    Args:
      histograms: int [N, 2, BINS], see `pixel_histogram`.
      pixels: [N] height times width of each image.
      part: int [N] from 0, which part each image is in: one validation fold in parts
        (`splits.assign_folds`), or the folds of images that were all predicted out of fold.
        No patient may be in two of them.
      kind: see `search`.
      **grid: further arguments of `search`.

    Returns:
      A `CrossFit`.

    Raises:
      ValueError: fewer than two parts.
    """
    histograms, pixels, part = np.asarray(histograms), np.asarray(pixels), np.asarray(part)
    if len(np.unique(part)) < 2:
        raise ValueError('a rule cannot be chosen on other parts: there is only one')
    score, area, rules = np.empty(len(part)), np.empty(len(part), np.int64), []
    for p in range(part.max() + 1):
        here = part == p
        rule, _ = search(histograms[~here], pixels[~here], kind=kind, **grid)
        score[here], area[here] = dice_per_image(histograms[here], pixels[here], rule)
        rules.append(rule)
    return CrossFit(score, area, part, tuple(rules))


class Sweep(NamedTuple):
    """Dice as a function of a single threshold."""

    threshold: np.ndarray  # float64 [T]
    mean_dice: np.ndarray  # float64 [T]
    positive_dice: np.ndarray | None  # float64 [T]; None without positives


def sweep(
    histograms, pixels, area: int = 0, reference_pixels: int = REFERENCE_PIXELS, tops=TOPS
) -> Sweep:
    """Mean and positive-only Dice over single thresholds at one minimum area, for a picture.

    Args:
      histograms: int [N, 2, BINS], see `pixel_histogram`.
      pixels: [N] height times width of each image.
      area: minimum area in pixels at `reference_pixels`.
      reference_pixels: see `Rule`.
      tops: [T] thresholds.
    """
    counts = _Counts(histograms, pixels)
    kept = [counts.large_enough(top, [area], reference_pixels)[:, 0] for top in tops]
    score = np.where(np.stack(kept, axis=1), counts.dice(tops), counts.empty_dice[:, None])
    positive = counts.true_px > 0
    return Sweep(
        np.asarray(tops, np.float64),
        score.mean(axis=0),
        score[positive].mean(axis=0) if positive.any() else None,
    )


class _Counts:
    """How many pixels, outside and inside, reach each threshold."""

    def __init__(self, histograms, pixels):
        histograms, self.pixels = np.asarray(histograms), np.asarray(pixels, np.int64)
        if histograms.shape[1:] != (2, BINS) or self.pixels.shape != histograms.shape[:1]:
            raise ValueError(
                f'histograms [N, 2, {BINS}] and pixels [N] expected, '
                f'got {histograms.shape} and {self.pixels.shape}'
            )
        self._reaching = np.cumsum(histograms[:, :, ::-1], axis=2, dtype=np.int32)[:, :, ::-1]
        self.true_px = self._reaching[:, 1, 0].astype(np.int64)
        self.empty_dice = (self.true_px == 0).astype(np.float64)

    def reaching(self, thresholds):
        """int64 [N, 2, T]."""
        return self._reaching[:, :, [_edge(t) for t in thresholds]].astype(np.int64)

    def dice(self, thresholds):
        """float64 [N, T]: Dice of all pixels that reach each threshold, whatever their number."""
        reaching = self.reaching(thresholds)
        total = reaching.sum(axis=1) + self.true_px[:, None]
        return np.where(total > 0, 2 * reaching[:, 1] / np.maximum(total, 1), 1.0)

    def large_enough(self, top, areas, reference_pixels):
        """bool [N, A]: whether the pixels that reach `top` are as many as each scaled area."""
        found = self.reaching([top]).sum(axis=1)
        areas = np.asarray(areas, np.int64)
        return _large_enough(found, self.pixels[:, None], areas, reference_pixels)


def _large_enough(found, pixels, area, reference_pixels):
    # Whole numbers on both sides: no rounding decides about an image.
    return found * reference_pixels >= area * pixels
