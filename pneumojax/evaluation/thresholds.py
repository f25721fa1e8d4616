"""Choosing the rule from probabilities to masks by the competition's Dice, and judging it fairly.

Rules are compared on what `rules` keeps of each image: exactly, without touching a pixel.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from pneumojax.evaluation.rules import (
    AUTHORS,
    BINS,
    REFERENCE_PIXELS,
    REGION_BOTTOMS,
    REGIONS,
    SNEDDY,
    Rule,
    apply,
    edge,
    large_enough,
    pixel_histogram,
    quantize,
    region_table,
)

__all__ = ['AUTHORS', 'BINS', 'REFERENCE_PIXELS', 'REGIONS', 'REGION_BOTTOMS', 'SNEDDY', 'Rule',
           'apply', 'cross_fit', 'dice_per_image', 'pixel_histogram', 'quantize', 'region_table',
           'search', 'sweep']  # fmt: skip

Kind = Literal['single', 'triplet', 'half']
HALF = Rule(top=0.5, area=0, bottom=0.5)

# Fine thresholds cost nothing; areas from no rule at all to a large lesion (SIIM's q90 is 32,219).
TOPS = tuple(k / 100 for k in range(5, 100))
AREAS = (
    *(0, 50, 100, 200, 300, 400, 600, 800, 1000, 1250, 1500, 1750, 2000, 2048, 2500, 3000),
    *(3500, 4000, 5000, 6000, 8000, 10_000, 14_000, 20_000, 30_000),
)
BOTTOMS = tuple(k / 20 for k in range(1, 20))


def dice_per_image(histograms, pixels, rule: Rule, regions=None) -> tuple[np.ndarray, np.ndarray]:
    """Dice of every image under one rule: what `apply` and `metrics.dice` give, without pixels.

    Args:
      histograms: int [N, 2, BINS], see `pixel_histogram`.
      pixels: [N] height times width of each image.
      rule: the rule.
      regions: int [N, B, R, 2], see `region_table`; for rules with `region` only.

    Returns:
      (Dice float64 [N], pixels in the predicted mask int64 [N]).
    """
    counts = _Counts(histograms, pixels, regions)
    kept = counts.large_enough(rule.top, [rule.area], rule.reference_pixels)[:, 0]
    outline = [(rule.bottom, rule.region)]
    score = np.where(kept, counts.dice(outline)[:, 0], counts.empty_dice)
    return score, np.where(kept, counts.marked(outline).sum(axis=1)[:, 0], 0)


def search(
    histograms,
    pixels,
    regions=None,
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
    to fail on other images; then the larger top, area and bottom.

    Args:
      histograms: int [N, 2, BINS] of validation images, see `pixel_histogram`.
      pixels: [N] height times width of each image.
      regions: int [N, B, R, 2], see `region_table`: rules that drop regions are tried too, at those
        bottoms of the grid (of 'single': tops) that are in `REGION_BOTTOMS`. None: no such rules.
      kind: 'triplet' tries tops x areas x bottoms with bottom <= top; 'single' tries tops x areas
        with bottom = top and ignores `bottoms`; 'half' chooses nothing: it is `HALF`.
      tops: thresholds that decide whether there is a lesion.
      areas: pixels at `reference_pixels`.
      bottoms: thresholds of the mask's outline.
      reference_pixels: see `Rule`.

    Returns:
      (rule, its mean Dice on these images: optimistic, see `cross_fit`).

    Raises:
      ValueError: no images or no rule to try.
    """
    if kind not in ('single', 'triplet', 'half'):
        raise ValueError(f"kind must be 'single', 'triplet' or 'half', not {kind!r}")
    counts = _Counts(histograms, pixels, regions)
    if not len(counts.true_px):
        raise ValueError('no images to choose a rule on')
    if kind == 'half':
        return HALF, float(counts.dice([(HALF.bottom, 0)]).mean())
    lines = list(tops if kind == 'single' else bottoms)
    # Outlines: every bottom with no region dropped, then those that the table knows.
    number = [(b, 0) for b in range(len(lines))]
    if regions is not None:
        tabulated = [b for b, line in enumerate(lines) if _tabulated(line)]
        number += [(b, r) for b in tabulated for r in range(1, len(REGIONS) + 1)]
    number = np.array(number, np.int64)
    outlines = [(lines[b], (0, *REGIONS)[r]) for b, r in number]
    # Mean Dice = mean(empty) + mean(large enough * (Dice - empty)): one matrix product per top.
    empty = counts.empty_dice
    gain = counts.dice(outlines) - empty[:, None]
    tried, scores = [], []
    for t, top in enumerate(tops):
        if kind == 'single':
            below = np.flatnonzero(number[:, 0] == t)
        else:
            below = np.flatnonzero([edge(line) <= edge(top) for line, _ in outlines])
        kept = counts.large_enough(top, areas, reference_pixels).astype(np.float64)
        scores.append((empty.mean() + kept.T @ gain[:, below] / len(empty)).ravel())
        a, o = np.divmod(np.arange(len(areas) * len(below)), max(1, len(below)))
        tried.append(np.column_stack([np.full(len(a), t), a, number[below][o]]))
    scores, tried = np.concatenate(scores), np.concatenate(tried)
    if not len(scores):
        raise ValueError('no rule to try: the grid has no bottom <= top')

    best = scores.max()
    tied = tried[scores > best - 1e-9]
    distance = np.round(((tied - tied.mean(axis=0)) ** 2).sum(axis=1), 6)
    t, a, b, r = tied[np.lexsort((*-tied.T[::-1], distance))[0]]
    rule = Rule(
        float(tops[t]), int(areas[a]), float(lines[b]), reference_pixels, int((0, *REGIONS)[r])
    )
    return rule, float(best)


def _tabulated(bottom) -> bool:
    return edge(bottom) in [edge(b) for b in REGION_BOTTOMS]


class CrossFit(NamedTuple):
    """Scores of images under rules that were not chosen on them."""

    dice: np.ndarray  # float64 [N]
    predicted_px: np.ndarray  # int64 [N]
    part: np.ndarray  # int [N], which part the image is in
    rules: tuple[Rule, ...]  # rules[p] was chosen on the other parts and applied to part p


def cross_fit(
    histograms, pixels, part, regions=None, *, kind: Kind = 'triplet', **grid
) -> CrossFit:
    """Measures thresholding honestly: each part with the rule that the other parts choose.

    Args:
      histograms: int [N, 2, BINS], see `pixel_histogram`.
      pixels: [N] height times width of each image.
      part: int [N] from 0, which part each image is in: one validation fold in parts
        (`splits.assign_folds`), or the folds of images that were all predicted out of fold.
        No patient may be in two of them.
      regions: see `search`.
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
        mine, others = (None if regions is None else regions[w] for w in (here, ~here))
        rule, _ = search(histograms[~here], pixels[~here], others, kind=kind, **grid)
        score[here], area[here] = dice_per_image(histograms[here], pixels[here], rule, mine)
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
    outlines = [(top, 0) for top in tops]
    score = np.where(np.stack(kept, axis=1), counts.dice(outlines), counts.empty_dice[:, None])
    positive = counts.true_px > 0
    return Sweep(
        np.asarray(tops, np.float64),
        score.mean(axis=0),
        score[positive].mean(axis=0) if positive.any() else None,
    )


class _Counts:
    """How many pixels, outside and inside, reach each threshold (in regions of some size)."""

    def __init__(self, histograms, pixels, regions=None):
        histograms, self.pixels = np.asarray(histograms), np.asarray(pixels, np.int64)
        if histograms.shape[1:] != (2, BINS) or self.pixels.shape != histograms.shape[:1]:
            raise ValueError(
                f'histograms [N, 2, {BINS}] and pixels [N] expected, '
                f'got {histograms.shape} and {self.pixels.shape}'
            )
        self._reaching = np.cumsum(histograms[:, :, ::-1], axis=2, dtype=np.int32)[:, :, ::-1]
        self._regions = regions
        self.true_px = self._reaching[:, 1, 0].astype(np.int64)
        self.empty_dice = (self.true_px == 0).astype(np.float64)

    def marked(self, outlines):
        """int64 [N, 2, O]: pixels in the mask of each (bottom, region)."""
        result = np.empty((len(self.pixels), 2, len(outlines)), np.int64)
        for o, (bottom, region) in enumerate(outlines):
            if region:
                b = [edge(k) for k in REGION_BOTTOMS].index(edge(bottom))
                result[:, :, o] = self._regions[:, b, REGIONS.index(region)]
            else:
                result[:, :, o] = self._reaching[:, :, edge(bottom)]
        return result

    def dice(self, outlines):
        """float64 [N, O]: Dice of each mask, whatever its size."""
        marked = self.marked(outlines)
        total = marked.sum(axis=1) + self.true_px[:, None]
        return np.where(total > 0, 2 * marked[:, 1] / np.maximum(total, 1), 1.0)

    def large_enough(self, top, areas, reference_pixels):
        """bool [N, A]: whether the pixels that reach `top` are as many as each scaled area."""
        found = self.marked([(top, 0)]).sum(axis=1)
        areas = np.asarray(areas, np.int64)
        return large_enough(found, self.pixels[:, None], areas, reference_pixels)
