"""The choice of a rule on few images, judged on others, against the one with the highest Dice."""

import itertools

import numpy as np
import pytest

from pneumojax.evaluation import thresholds
from pneumojax.evaluation.counts import PixelCounts
from pneumojax.evaluation.metrics import dice
from pneumojax.evaluation.rules import BINS, REFERENCE_PIXELS, Rule, apply
from pneumojax.evaluation.thresholds import EMPTY, Grid

GRID = Grid(tops=tuple(k / 40 for k in range(2, 40)))
RULES = [Rule(t, a, t) for t, a in itertools.product(GRID.tops, GRID.areas)]


def draw(rng, n, separation):
    """A suspicious region per image, as sure and as large as its lesion, if it has one, makes it.

    Args:
      rng: draws n images, a fifth of them positive.
      n: how many.
      separation: how much surer, in logits, and how many times larger, in powers of e, regions
        over lesions are than others; 0: the network knows nothing.
    """
    histograms = np.zeros((n, 2, BINS), np.int32)
    positive = np.arange(n) % 5 == 0
    sizes = 2000 * np.exp(rng.normal(size=n) + separation * positive)
    logits = rng.normal(size=n) + separation * positive
    for histogram, lesion, size, logit in zip(histograms, positive, sizes, logits, strict=True):
        pixels = min(int(size), REFERENCE_PIXELS // 4)
        k = int(BINS / (1 + np.exp(-logit)))
        inside = 6 * pixels // 10 if lesion else 0
        histogram[:, k] = pixels - inside, inside
        histogram[1, 0] = 4 * pixels // 10 if lesion else 0  # what it misses
        histogram[0, 0] = REFERENCE_PIXELS - histogram.sum()
    return PixelCounts(histograms, np.full(n, REFERENCE_PIXELS))


def dice_of(counts):
    """float64 [N, R]: Dice of every image under each of RULES, by another route than `search`."""
    reaching = counts.histograms[:, :, ::-1].cumsum(axis=2)[:, :, ::-1]
    true = counts.histograms[:, 1].sum(axis=1)
    columns = []
    for rule in RULES:
        outside, inside = reaching[:, :, round(rule.top * BINS)].T
        kept = outside + inside >= rule.area
        both = np.where(kept, outside + inside, 0) + true
        score = 2 * np.where(kept, inside, 0) / np.maximum(both, 1)
        columns.append(np.where(both == 0, 1.0, score))
    return np.stack(columns, axis=1)


def compare(separation, n, repeats):
    """On 500 new images, less the all-empty Dice: the highest rule on n others, and the choice.

    Returns:
      float64 [repeats, 2], and the rules chosen.
    """
    gains, chosen = [], []
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        few, new = draw(rng, n, separation), draw(rng, 500, separation)
        rule, mean = thresholds.search(few, 'single', GRID)
        on_few, on_new = dice_of(few).mean(axis=0), dice_of(new).mean(axis=0)
        highest = on_few.argmax()
        assert mean <= max(on_few[highest], 0.8) + 1e-12
        on_these = thresholds.dice_per_image(new, rule)[0].mean()
        gains.append((on_new[highest] - 0.8, on_these - 0.8))
        chosen.append(rule)
    return np.array(gains), chosen


def test_few_lesions_do_not_lead_it_astray():
    gains, _ = compare(separation=1.2, n=50, repeats=80)
    highest, choice = gains.mean(axis=0)
    assert highest < 0.002  # no better on new images than empty masks
    assert choice > highest + 0.005
    worst_highest, worst_choice = np.sort(gains, axis=0)[:8].mean(axis=0)
    assert worst_choice > worst_highest + 0.02


@pytest.mark.parametrize(('n', 'repeats'), [(100, 20), (1000, 20)])
def test_a_network_that_knows_nothing_marks_next_to_nothing(n, repeats):
    gains, chosen = compare(separation=0, n=n, repeats=repeats)
    highest, choice = gains.mean(axis=0)
    assert highest < -0.0015
    assert choice > highest / 4
    assert sum(rule == EMPTY for rule in chosen) >= 0.3 * repeats


def test_many_images_and_a_good_network_lose_nothing():
    gains, chosen = compare(separation=3, n=1000, repeats=10)
    assert EMPTY not in chosen
    highest, choice = gains.mean(axis=0)
    assert highest > 0.05
    assert choice > highest - 0.0005


@pytest.mark.parametrize('kind', ['single', 'triplet'])
def test_a_perfect_network_scores_one_on_others_too(kind):
    rng = np.random.default_rng(5)
    histograms = np.zeros((60, 2, BINS), np.int32)
    lesions = np.where(np.arange(60) % 5, 0, np.exp(rng.uniform(5, 11, 60)).astype(int))
    histograms[:, 1, 990] = lesions
    histograms[:, 0, 3] = REFERENCE_PIXELS - lesions
    counts = PixelCounts(histograms, np.full(60, REFERENCE_PIXELS))
    few, others = counts.take(slice(0, 20)), counts.take(slice(20, None))
    rule, mean = thresholds.search(few, kind)
    assert mean == 1
    assert thresholds.dice_per_image(others, rule)[0].tolist() == [1] * 40


def test_the_empty_rule_leaves_every_image_empty():
    for shape in ((1, 1), (30, 40), (1024, 1024), (1, 3000)):
        assert not apply(EMPTY, np.ones(shape, np.float32)).any()
    assert EMPTY.marks_nothing
    assert not Rule(0.5, REFERENCE_PIXELS, 0.5).marks_nothing
    assert apply(Rule(0.5, REFERENCE_PIXELS, 0.5), np.ones((30, 40), np.float32)).all()
    counts = draw(np.random.default_rng(0), 10, 1)
    score, predicted_px = thresholds.dice_per_image(counts, EMPTY)
    nothing, lesion = np.zeros(9), np.ones(9)
    assert score.tolist() == [dice(nothing, lesion * (i % 5 == 0)) for i in range(10)]
    assert not predicted_px.any()


def test_without_a_lesion_to_find_the_choice_is_to_mark_nothing():
    counts = draw(np.random.default_rng(0), 20, 1)
    negatives = counts.take(counts.true_px == 0)
    for kind in ('single', 'triplet'):
        assert thresholds.search(negatives, kind) == (EMPTY, 1.0)


def test_a_search_that_finds_other_rules_says_another_version():
    """After a change of `search` that makes this fail, raise SEARCH_VERSION."""
    found = [
        thresholds.search(draw(np.random.default_rng(seed), 60, 1.5), kind)[0]
        for kind in ('single', 'triplet')
        for seed in range(3)
    ]
    assert (thresholds.SEARCH_VERSION, [(r.top, r.area, r.bottom) for r in found]) == (2, [
        (0.68, 8000, 0.68), (0.63, 6000, 0.63), (0.47, 8000, 0.47),
        (0.67, 8000, 0.65), (0.61, 6000, 0.60), (0.45, 8000, 0.45),
    ])  # fmt: skip
