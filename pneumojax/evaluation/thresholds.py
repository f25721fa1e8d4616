"""Choosing the rule from probabilities to masks by the competition's Dice, and scoring it fairly.

Rules are compared on `counts`: exactly, without touching a pixel.

With few lesions the rule that does best is often one that suits these images by chance. Two things
keep the choice from that (ours; docs/explanation/figures.md has what they gain): a rule is judged
together with its neighbours, and has to do better than leaving every image empty.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from pneumojax.evaluation import risk
from pneumojax.evaluation.counts import REGION_BOTTOMS, REGIONS, PixelCounts
from pneumojax.evaluation.rules import REFERENCE_PIXELS, Rule, bin_of, large_enough

RuleKind = Literal['single', 'triplet', 'half', 'risk']
HALF = Rule(top=0.5, area=0, bottom=0.5)
EMPTY = Rule(top=0.5, area=REFERENCE_PIXELS + 1, bottom=0.5)  # no image has so many pixels
# How far rules are averaged with others, as standard deviations: of thresholds, and of the natural
# logarithm of the area, to which 100 px are added.
THRESHOLD_WIDTH, AREA_WIDTH = 0.03, 0.3
# Raise it with every change of which rule `search` finds: rules in run directories say theirs.
SEARCH_VERSION = 2


@dataclasses.dataclass(frozen=True)
class Grid:
    """The rules that `search` tries.

    Attributes:
      tops: thresholds that decide whether there is a lesion.
      areas: pixels at `reference_pixels`. By default they go from no minimum to a large lesion
        (the 90 % quantile on SIIM is 32,219).
      bottoms: thresholds of the mask's outline.
      reference_pixels: see `Rule`.
    """

    tops: Sequence[float] = tuple(k / 100 for k in range(5, 100))
    areas: Sequence[int] = (
        *(0, 50, 100, 200, 300, 400, 600, 800, 1000, 1250, 1500, 1750, 2000, 2048, 2500, 3000),
        *(3500, 4000, 5000, 6000, 8000, 10_000, 14_000, 20_000, 30_000),
    )
    bottoms: Sequence[float] = tuple(k / 20 for k in range(1, 20))
    reference_pixels: int = REFERENCE_PIXELS


GRID = Grid()


def dice_per_image(counts: PixelCounts, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Dice of every image under one rule: what `rules.apply` and `metrics.dice` give.

    Args:
      counts: N images; rules with `region` need `counts.regions`.
      rule: the rule.

    Returns:
      (Dice float64 [N], pixels in the predicted mask int64 [N]).
    """
    return _Masks(counts).under(rule)


def search(
    counts: PixelCounts, kind: RuleKind = 'triplet', grid: Grid = GRID, *, miss: float = 0.1
) -> tuple[Rule, float]:
    """The rule of a grid whose neighbourhood has the best mean Dice, 1 where both masks are empty.

    Among thousands of rules a few suit the images by chance, but not all of those near them. So the
    rules are compared by the weighted mean of the mean Dice of all rules that drop the same
    regions. The weight of a rule at a distance d is exp(-d**2 / 2), where d**2 is the sum of

        (difference of top / THRESHOLD_WIDTH) ** 2
        (difference of bottom / THRESHOLD_WIDTH) ** 2, only for 'triplet'
        (difference of log(area + 100) / AREA_WIDTH) ** 2

    Where no such mean is above the mean Dice of empty masks, the choice is `EMPTY`: a network that
    finds nothing marks nothing. Of tied rules the one nearest to their middle is taken, in steps of
    the grid, then the larger top, area and bottom.

    Args:
      counts: validation images. With `counts.regions`, rules that drop regions are tried too, at
        those bottoms of the grid (for 'single': tops) that are in `REGION_BOTTOMS`.
      kind: 'triplet' tries tops x areas x bottoms with bottom <= top; 'single' tries tops x areas
        with bottom = top and ignores `grid.bottoms`; 'half' chooses nothing and returns `HALF`;
        'risk' chooses by missed pixels instead of Dice and ignores the grid, see `risk.search`.
      grid: the rules to try.
      miss: for 'risk': the largest mean share of a lesion that may be missed.

    Returns:
      (rule, its mean Dice on these images: optimistic, see `cross_fit`).

    Raises:
      ValueError: there are no images or no rules to try.
      UsageError: 'risk' finds no rule that misses so little.
    """
    if kind not in get_args(RuleKind):
        raise ValueError(f'kind must be one of {get_args(RuleKind)}, not {kind!r}')
    if not len(counts):
        raise ValueError('no images to choose a rule on')
    masks = _Masks(counts)
    if kind in ('half', 'risk'):
        rule = HALF if kind == 'half' else risk.search(counts, miss)
        return rule, float(masks.under(rule)[0].mean())
    bottoms = grid.tops if kind == 'single' else grid.bottoms
    outlines = _outlines(bottoms, drop_regions=counts.regions is not None)
    gains = _smooth_gains(masks, bottoms, outlines, kind, grid)
    best = gains.max(initial=-np.inf)
    if best == -np.inf:
        raise ValueError('no rule to try: the grid has no bottom <= top')
    rule = EMPTY
    if best > 1e-9:
        tied = np.argwhere(gains > best - 1e-9)
        distance = np.round(((tied - tied.mean(axis=0)) ** 2).sum(axis=1), 6)
        t, a, b, r = tied[np.lexsort((*-tied.T[::-1], distance))[0]]
        top, bottom = grid.tops[t], grid.tops[t] if kind == 'single' else bottoms[b]
        rule = Rule(
            float(top), int(grid.areas[a]), float(bottom), grid.reference_pixels,
            int((0, *REGIONS)[r]),
        )  # fmt: skip
    return rule, float(masks.under(rule)[0].mean())


def _outlines(bottoms: Sequence[float], drop_regions: bool) -> np.ndarray:
    """int64 [O, 2]: positions in `bottoms` and in (0, *REGIONS) of each way to draw a mask."""
    outlines = [(b, 0) for b in range(len(bottoms))]
    if drop_regions:
        known = {bin_of(bottom) for bottom in REGION_BOTTOMS}
        tabulated = [b for b, bottom in enumerate(bottoms) if bin_of(bottom) in known]
        outlines += [(b, r) for b in tabulated for r in range(1, len(REGIONS) + 1)]
    return np.array(outlines, np.int64)


def _smooth_gains(
    masks: '_Masks', bottoms: Sequence[float], outlines: np.ndarray, kind: RuleKind, grid: Grid
) -> np.ndarray:
    """float64 [tops, areas, bottoms, regions]: what `search` compares, less that of empty masks.

    It is -inf where there is no rule. For 'single' there is one bottom, the top.
    """
    # Mean Dice = mean(empty) + mean(large enough * (Dice - empty)): one matrix product per top.
    empty = masks.empty_dice
    gain = masks.dice([(bottoms[b], (0, *REGIONS)[r]) for b, r in outlines]) - empty[:, None]
    own = [0.0] if kind == 'single' else bottoms
    gains = np.zeros((len(grid.tops), len(grid.areas), len(own), 1 + len(REGIONS)))
    exists = np.zeros(gains.shape)
    for t, top in enumerate(grid.tops):
        if kind == 'single':
            allowed = np.flatnonzero(outlines[:, 0] == t)
        else:
            allowed = np.flatnonzero([bin_of(bottoms[b]) <= bin_of(top) for b, _ in outlines])
        b, r = outlines[allowed].T
        b = np.minimum(b, len(own) - 1)
        kept = masks.large_enough(top, grid.areas, grid.reference_pixels).astype(np.float64)
        gains[t, :, b, r] = (kept.T @ gain[:, allowed] / len(empty)).T
        exists[t, :, b, r] = 1

    near = (
        _near(grid.tops, THRESHOLD_WIDTH),
        _near(np.log(np.asarray(grid.areas) + 100), AREA_WIDTH),
        _near(own, THRESHOLD_WIDTH),
    )
    total, weight = (
        np.einsum('tu,ac,bd,ucdr->tabr', *near, of, optimize=True) for of in (gains, exists)
    )
    return np.where(exists, total / np.where(exists, weight, 1), -np.inf)


def _near(values: ArrayLike, width: float) -> np.ndarray:
    """float64 [V, V]: the weight of each value in the mean around each."""
    values = np.asarray(values, np.float64)
    return np.exp(-(((values[:, None] - values) / width) ** 2) / 2)


class CrossFit(NamedTuple):
    """N images under rules that were not chosen on them."""

    dice: np.ndarray  # float64 [N]
    predicted_px: np.ndarray  # int64 [N]
    rules: tuple[Rule, ...]  # rules[p] was chosen on the other parts and applied to part p


def cross_fit(
    counts: PixelCounts,
    parts: ArrayLike,
    kind: RuleKind = 'triplet',
    grid: Grid = GRID,
    *,
    miss: float = 0.1,
) -> CrossFit:
    """Scores images fairly: each part under the rule that the other parts choose.

    Args:
      counts: N images.
      parts: int [N] from 0, the part of each image: one validation fold divided by
        `splits.assign_folds`, or the folds of images that were all predicted out of fold. No
        patient may be in two parts.
      kind, grid, miss: see `search`.

    Raises:
      UsageError: see `search`.
      ValueError: fewer than two parts.
    """
    parts = np.asarray(parts)
    if len(np.unique(parts)) < 2:
        raise ValueError('a rule cannot be chosen on other parts: there is only one')
    dice, predicted_px, rules = np.empty(len(parts)), np.empty(len(parts), np.int64), []
    for part in range(parts.max() + 1):
        here = parts == part
        rule, _ = search(counts.take(~here), kind, grid, miss=miss)
        dice[here], predicted_px[here] = dice_per_image(counts.take(here), rule)
        rules.append(rule)
    return CrossFit(dice, predicted_px, tuple(rules))


class Sweep(NamedTuple):
    """Dice as a function of a single threshold."""

    threshold: np.ndarray  # float64 [T]
    mean_dice: np.ndarray  # float64 [T]
    positive_dice: np.ndarray | None  # float64 [T]; None without positives


def sweep(counts: PixelCounts, area: int = 0, tops: Sequence[float] = GRID.tops) -> Sweep:
    """Mean and positive-only Dice over single thresholds at one minimum area, for a picture.

    Args:
      counts: the images.
      area: minimum area in pixels at `REFERENCE_PIXELS`.
      tops: [T] thresholds.
    """
    masks = _Masks(counts)
    kept = [masks.large_enough(top, [area], REFERENCE_PIXELS)[:, 0] for top in tops]
    outlines = [(top, 0) for top in tops]
    dice = np.where(np.stack(kept, axis=1), masks.dice(outlines), masks.empty_dice[:, None])
    positive = masks.true_px > 0
    return Sweep(
        np.asarray(tops, np.float64),
        dice.mean(axis=0),
        dice[positive].mean(axis=0) if positive.any() else None,
    )


class _Masks:
    """Sizes and Dice of the masks that rules make, from counts alone.

    An outline is (bottom, region): every pixel that reaches `bottom` in a region of that size.
    """

    def __init__(self, counts: PixelCounts):
        self._counts = counts
        rising = counts.histograms[:, :, ::-1]
        self._reaching = np.cumsum(rising, axis=2, dtype=np.int32)[:, :, ::-1]
        self.true_px = counts.true_px
        self.empty_dice = (self.true_px == 0).astype(np.float64)

    def sizes(self, outlines: Sequence[tuple[float, int]]) -> np.ndarray:
        """int64 [N, 2, O]: pixels of each mask outside (0) and inside (1) the true one."""
        result = np.empty((len(self._counts), 2, len(outlines)), np.int64)
        for o, (bottom, region) in enumerate(outlines):
            if region:
                assert self._counts.regions is not None, 'rules with `region` need `regions`'
                b = [bin_of(known) for known in REGION_BOTTOMS].index(bin_of(bottom))
                result[:, :, o] = self._counts.regions[:, b, REGIONS.index(region)]
            else:
                result[:, :, o] = self._reaching[:, :, bin_of(bottom)]
        return result

    def dice(self, outlines: Sequence[tuple[float, int]]) -> np.ndarray:
        """float64 [N, O]: Dice of each mask, whatever its size."""
        sizes = self.sizes(outlines)
        total = sizes.sum(axis=1) + self.true_px[:, None]
        return np.where(total > 0, 2 * sizes[:, 1] / np.maximum(total, 1), 1.0)

    def large_enough(self, top: float, areas: Sequence[int], reference_pixels: int) -> np.ndarray:
        """bool [N, A]: whether the pixels that reach `top` are as many as each scaled area."""
        found = self.sizes([(top, 0)]).sum(axis=1)
        pixels = self._counts.pixels.astype(np.int64)[:, None]
        return large_enough(found, pixels, np.asarray(areas, np.int64), reference_pixels)

    def under(self, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
        """What `dice_per_image` returns."""
        kept = self.large_enough(rule.top, [rule.area], rule.reference_pixels)[:, 0]
        outline = [(rule.bottom, rule.region)]
        dice = np.where(kept, self.dice(outline)[:, 0], self.empty_dice)
        return dice, np.where(kept, self.sizes(outline).sum(axis=1)[:, 0], 0)
