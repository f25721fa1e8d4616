"""Rules from histograms against the same rules on pixels, and search against loops."""

import dataclasses
import itertools
import math
import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pneumojax.data.datasets.splits import assign_folds
from pneumojax.evaluation import rules, thresholds
from pneumojax.evaluation.counts import (
    REGION_BOTTOMS,
    REGIONS,
    PixelCounts,
    pixel_histogram,
    region_table,
)
from pneumojax.evaluation.metrics import dice
from pneumojax.evaluation.rules import BINS, REFERENCE_PIXELS, Rule
from pneumojax.evaluation.thresholds import Grid

GRID = Grid(
    tops=(0.3, 0.5, 0.53, 0.7, 0.9), areas=(0, 3000, 20_000, 30_000), bottoms=(0.2, 0.5, 0.56, 0.7)
)


def image(rng, shape=(40, 56), share=0.5):
    """A blob of probability that roughly agrees with a blob of truth, or noise without one."""
    field = cv2.GaussianBlur(rng.standard_normal(shape), (0, 0), 5)
    mask = (field > np.quantile(field, 0.9)).astype(np.uint8) * (rng.random() < share)
    logits = 60 * (cv2.GaussianBlur(field + 0.03 * rng.standard_normal(shape), (0, 0), 1) - 0.1)
    probability = 1 / (1 + np.exp(-logits - 3 * mask + rng.normal()))
    return probability.astype(np.float32), mask


def images(seed, n):
    rng = np.random.default_rng(seed)
    shapes = [(40, 56), (32, 32), (64, 48)]
    pairs = [image(rng, shapes[i % 3]) for i in range(n)]
    histograms = np.stack([pixel_histogram(*pair) for pair in pairs])
    return pairs, PixelCounts(histograms, np.array([mask.size for _, mask in pairs]))


def test_histogram_equals_numpy_and_counts_every_pixel():
    rng = np.random.default_rng(0)
    probability = (rng.integers(0, 1000, (64, 48)) / 1000 + 0.0005).astype(np.float32)
    mask = rng.random((64, 48)) < 0.2
    histogram = pixel_histogram(probability, mask * np.uint8(255))
    edges = np.arange(BINS + 1) / BINS
    for row, inside in zip(histogram, (~mask, mask), strict=True):
        np.testing.assert_array_equal(row, np.histogram(probability[inside], edges)[0])
    assert histogram.dtype == np.int32
    assert histogram.sum() == mask.size


def test_every_threshold_is_reached_by_its_own_float32_and_not_from_a_bin_below():
    edges = (np.arange(BINS) / BINS).astype(np.float32)
    assert any(edges[k] * 1000 < k for k in range(1000))  # what a plain floor gets wrong
    np.testing.assert_array_equal(rules.quantize(edges), np.arange(BINS))
    below = rules.quantize(edges[1:] - np.float32(1e-6))
    np.testing.assert_array_equal(below, np.arange(BINS - 1))
    assert rules.quantize(1.0) == BINS - 1
    assert rules.quantize(np.float32(1 + 1e-6)) == BINS - 1


@pytest.mark.parametrize('bad', [-0.1, 1.1, np.nan, np.inf])
def test_logits_and_nan_are_refused(bad):
    with pytest.raises(ValueError, match='probabilities'):
        rules.quantize(np.array([0.5, bad], np.float32))


def test_histogram_refuses_another_shape():
    with pytest.raises(ValueError, match='differ'):
        pixel_histogram(np.zeros((4, 4)), np.zeros((4, 5)))


def test_apply_is_the_triplet_rule_at_the_reference_size():
    probability = np.zeros((1024, 1024), np.float32)
    probability[0, :700] = 0.8  # 700 px reach the top
    probability[1, :500] = 0.4  # and 500 more the bottom
    expected = (probability >= 0.3).astype(np.uint8)
    np.testing.assert_array_equal(rules.apply(Rule(0.8, 700, 0.3), probability), expected)
    assert not rules.apply(Rule(0.8, 701, 0.3), probability).any()
    assert rules.apply(Rule(0.4, 1200, 0.4), probability).sum() == 1200
    assert not rules.apply(Rule(0.4, 1201, 0.4), probability).any()


def test_area_scales_with_the_image():
    rule = Rule(0.5, 2048, 0.5)
    for side, just_enough in ((1024, 2048), (512, 512), (256, 128), (2048, 8192)):
        probability = np.zeros(side * side, np.float32)
        probability[:just_enough] = 0.9
        assert rules.apply(rule, probability.reshape(side, side)).sum() == just_enough
        probability[0] = 0
        assert not rules.apply(rule, probability.reshape(side, side)).any()
    halves = Rule(0.5, 512, 0.5, reference_pixels=512 * 512)  # the same rule said at 512
    probability = np.zeros((1024, 1024), np.float32)
    probability.flat[:2048] = 0.9
    assert rules.apply(halves, probability).sum() == 2048


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    edges=st.tuples(st.integers(1, 999), st.integers(1, 999)),
    area=st.integers(0, REFERENCE_PIXELS // 4),
)
def test_histograms_give_exactly_what_pixels_give(seed, edges, area):
    rule = Rule(max(edges) / 1000, area, min(edges) / 1000)
    pairs, counts = images(seed, 4)
    masks = [rules.apply(rule, probability) for probability, _ in pairs]
    score, area_px = thresholds.dice_per_image(counts, rule)
    assert score.tolist() == [dice(m, true) for m, (_, true) in zip(masks, pairs, strict=True)]
    assert area_px.tolist() == [int(m.sum()) for m in masks]


def check_search(counts, pairs, kind, grid, tried):
    """Compares the rule found in the grid, and the Dice reported, with loops over all rules tried.

    Returns:
      (the rule, {rule: the mean that it is chosen by}).
    """
    means = {
        rule: np.mean([dice(rules.apply(rule, p), true) for p, true in pairs]) for rule in tried
    }
    smooth = {}
    for rule in tried:
        total = weights = 0.0
        for other in tried:
            if other.region == rule.region:
                squared = ((rule.top - other.top) / 0.03) ** 2
                squared += (math.log((rule.area + 100) / (other.area + 100)) / 0.3) ** 2
                if kind == 'triplet':
                    squared += ((rule.bottom - other.bottom) / 0.03) ** 2
                total += math.exp(-squared / 2) * means[other]
                weights += math.exp(-squared / 2)
        smooth[rule] = total / weights
    rule, mean = thresholds.search(counts, kind, grid)
    assert mean == pytest.approx(means[rule], abs=1e-12)
    assert smooth[rule] == pytest.approx(max(smooth.values()), abs=2e-9)  # ties
    assert max(smooth.values()) > np.mean([not true.any() for _, true in pairs]) + 1e-6
    assert len({round(value, 9) for value in smooth.values()}) > 5  # not all alike
    return rule, smooth


@pytest.mark.parametrize('kind', ['single', 'triplet'])
def test_search_equals_a_loop_over_pixels(kind):
    pairs, counts = images(7, 12)
    if kind == 'single':
        tried = [Rule(t, a, t) for t, a in itertools.product(GRID.tops, GRID.areas)]
    else:
        product = itertools.product(GRID.tops, GRID.areas, GRID.bottoms)
        tried = [Rule(t, a, b) for t, a, b in product if b <= t]
    check_search(counts, pairs, kind, GRID, tried)


def test_half_chooses_nothing():
    pairs, counts = images(7, 12)
    rule, mean = thresholds.search(counts, 'half', GRID)
    assert mean == pytest.approx(np.mean([dice(p >= 0.5, true) for p, true in pairs]), abs=1e-12)
    best = thresholds.search(counts, 'single', GRID)[1]
    assert mean < best  # which these images would have chosen
    fitted = thresholds.cross_fit(counts, np.arange(12) % 2, 'half')
    assert fitted.rules == (rule, rule)
    assert fitted.dice.mean() == pytest.approx(mean, abs=1e-12)


HERE = 40 * 56  # reference pixels at which REGIONS are small parts of these images


def keep_large(mask, region, reference_pixels):
    """Drops small regions, by another library."""
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    for label in range(1, count + 1):
        if (labels == label).sum() * reference_pixels < region * mask.size:
            mask = mask & (labels != label)
    return mask


def speckled(seed, n):
    """Images with regions of many sizes, inside the truth and outside."""
    rng = np.random.default_rng(seed)
    pairs = []
    for probability, mask in images(seed, n)[0]:
        spots = cv2.GaussianBlur(rng.standard_normal(mask.shape), (0, 0), 1.5)
        noisy = np.clip(probability + 3 * np.maximum(spots - 0.12, 0), 0, 1)
        pairs.append((noisy.astype(np.float32), mask))
    histograms = np.stack([pixel_histogram(*pair) for pair in pairs])
    tables = np.stack([region_table(*pair, reference_pixels=HERE) for pair in pairs])
    return pairs, PixelCounts(histograms, np.array([m.size for _, m in pairs]), tables)


def test_region_table_equals_labels_of_another_library():
    pairs, counts = speckled(21, 5)
    for (probability, true), table in zip(pairs, counts.regions, strict=True):
        bins = rules.quantize(probability)
        for b, bottom in enumerate(REGION_BOTTOMS):
            for r, region in enumerate(REGIONS):
                mask = keep_large(bins >= round(bottom * 1000), region, HERE)
                expected = [(mask & (true == 0)).sum(), (mask & (true == 1)).sum()]
                assert table[b, r].tolist() == expected
                rule = Rule(bottom, 0, bottom, HERE, region)
                np.testing.assert_array_equal(rules.apply(rule, probability), mask)
    assert len(np.unique(counts.regions)) > 50


@pytest.mark.parametrize('kind', ['single', 'triplet'])
def test_search_with_regions_equals_a_loop_over_pixels(kind):
    pairs, counts = speckled(22, 12)
    grid = Grid((0.3, 0.5, 0.55, 0.7), (0, 60, 300), (0.1, 0.2, 0.25, 0.5), reference_pixels=HERE)
    edges = [(t, t) for t in grid.tops]
    if kind == 'triplet':
        edges = [(t, b) for t in grid.tops for b in grid.bottoms if b <= t]
    tried = [
        Rule(t, a, b, HERE, r)
        for (t, b), a, r in itertools.product(edges, grid.areas, (0, *REGIONS))
        if r == 0 or b in REGION_BOTTOMS
    ]
    rule, means = check_search(counts, pairs, kind, grid, tried)
    assert rule.region  # dropping regions is what helps here
    assert means[rule] > max(value for r, value in means.items() if not r.region) + 1e-6
    score, area = thresholds.dice_per_image(counts, rule)
    masks = [rules.apply(rule, p) for p, _ in pairs]
    assert score.tolist() == [dice(m, true) for m, (_, true) in zip(masks, pairs, strict=True)]
    assert area.tolist() == [int(m.sum()) for m in masks]


def test_regions_are_scored_under_rules_of_other_images():
    _, counts = speckled(23, 12)
    parts = np.arange(12) % 3
    grid = dataclasses.replace(GRID, reference_pixels=HERE)
    fitted = thresholds.cross_fit(counts, parts, 'triplet', grid)
    for part in range(3):
        rule, _ = thresholds.search(counts.take(parts != part), 'triplet', grid)
        assert fitted.rules[part] == rule
        score, _ = thresholds.dice_per_image(counts, rule)
        np.testing.assert_array_equal(fitted.dice[parts == part], score[parts == part])
    assert any(rule.region for rule in fitted.rules)


def test_ties_end_in_the_middle_of_the_plateau():
    # One lesion of 10,000 px with p = 0.905, one false alarm of 1,000 px with p = 0.605.
    histograms = np.zeros((2, 2, BINS), np.int32)
    histograms[0, 1, 905], histograms[0, 0, 5] = 10_000, REFERENCE_PIXELS - 10_000
    histograms[1, 0, 605], histograms[1, 0, 5] = 1_000, REFERENCE_PIXELS - 1_000
    counts = PixelCounts(histograms, np.full(2, REFERENCE_PIXELS))
    # Both far from other rules, so that neighbours do not decide.
    grid = Grid(tops=(0.1,), areas=(0, 1500, 9000, 10**6))
    rule, mean = thresholds.search(counts, 'single', grid)
    assert (mean, rule.area) == (1, 9000)  # of the two middle ones the larger
    rule, mean = thresholds.search(counts, 'single', Grid(tops=(0.1, 0.62, 0.9), areas=(0,)))
    assert (mean, rule.top) == (1, 0.9)


def test_the_choice_keeps_away_from_edges_of_the_plateau():
    histograms = np.zeros((2, 2, BINS), np.int32)
    histograms[0, 1, 905], histograms[0, 0, 5] = 10_000, REFERENCE_PIXELS - 10_000
    histograms[1, 0, 605], histograms[1, 0, 5] = 1_000, REFERENCE_PIXELS - 1_000
    counts = PixelCounts(histograms, np.full(2, REFERENCE_PIXELS))
    rule, mean = thresholds.search(counts, 'single', dataclasses.replace(Grid(), tops=(0.5,)))
    assert mean == 1
    assert 2500 <= rule.area <= 4000  # far from 1,000 and from 10,000, in ratio
    rule, mean = thresholds.search(counts, 'single', dataclasses.replace(Grid(), areas=(0,)))
    assert mean == 1
    assert 0.72 <= rule.top <= 0.8  # far from 0.605 and from 0.905


def test_search_finds_a_planted_rule_on_the_default_grid():
    rng = np.random.default_rng(2)
    histograms = np.zeros((40, 2, BINS), np.int32)
    for i, histogram in enumerate(histograms):
        histogram[0, 5] = REFERENCE_PIXELS - 10_000
        if i % 2:  # lesions: a sure core in an unsure rim that belongs to them
            histogram[1, 850], histogram[1, 320] = 4_000, 5_000
            histogram[0, 220] = 1_000
        else:  # false alarms: less sure, or sure but small
            histogram[0, 720], histogram[0, 900] = 9_500, rng.integers(100, 500)
    rule, mean = thresholds.search(PixelCounts(histograms, np.full(40, REFERENCE_PIXELS)))
    assert mean == 1
    assert 0.72 < rule.top <= 0.85
    assert 500 < rule.area <= 4_000
    assert 0.22 < rule.bottom <= 0.32


def test_default_grid_has_the_published_rules():
    default = Grid()
    for rule in (rules.AUTHORS, Rule(0.75, 2000, 0.3), Rule(0.7, 600, 0.3), rules.SNEDDY):
        assert rule.top in default.tops
        assert rule.area in default.areas
        assert rule.bottom in (rule.top, *default.bottoms)


@pytest.mark.parametrize(
    'arguments',
    [
        (0.3, 100, 0.5),  # bottom above top
        (1.0, 100, 0.5),
        (0.5, 100, 0.0),
        (0.5, -1, 0.5),
        (0.5, 1.5, 0.5),
        (0.5, 100, 0.5, 0),
        (0.5, 100, 0.5, 1024, -1),
        (0.5, 100, 0.5, 1024, 0.5),
        (0.5005, 100, 0.5),  # between two bins
        (float('nan'), 100, 0.5),
    ],
)
def test_impossible_rules_are_refused(arguments):
    with pytest.raises(ValueError, match=r'bottom <= top|area|multiple|NaN'):
        Rule(*arguments)


def test_search_refuses_nothing_to_search():
    _, counts = images(0, 2)
    with pytest.raises(ValueError, match='no images'):
        thresholds.search(counts.take([]))
    with pytest.raises(ValueError, match='no rule'):
        thresholds.search(counts, grid=Grid(tops=(0.3,), areas=(0,), bottoms=(0.5,)))
    with pytest.raises(ValueError, match='kind'):
        thresholds.search(counts, 'double')


def test_cross_fit_measures_no_image_with_a_rule_chosen_on_its_patient():
    pairs, counts = images(11, 24)
    patients = np.array([f'p{i // 2}' for i in range(24)])
    parts = assign_folds(counts.true_px > 0, patients, 2, 3)
    fitted = thresholds.cross_fit(counts, parts, grid=GRID)
    assert set(parts) == {0, 1}
    for patient in set(patients):
        assert len(set(parts[patients == patient])) == 1
    for i, (probability, true) in enumerate(pairs):
        rule, _ = thresholds.search(counts.take(parts != parts[i]), grid=GRID)
        mask = rules.apply(rule, probability)
        assert fitted.rules[parts[i]] == rule
        assert (fitted.dice[i], fitted.predicted_px[i]) == (dice(mask, true), mask.sum())


def test_cross_fit_is_less_optimistic_than_the_search_it_replaces():
    optimism = []
    for seed in range(8):
        _, counts = images(seed, 12)
        chosen = thresholds.search(counts)[1]
        parts = assign_folds(counts.true_px > 0, np.arange(12).astype(str), 2, seed)
        optimism.append(chosen - thresholds.cross_fit(counts, parts).dice.mean())
    assert np.mean(optimism) > 0


def test_cross_fit_needs_two_parts():
    _, counts = images(0, 3)
    with pytest.raises(ValueError, match='only one'):
        thresholds.cross_fit(counts, [1, 1, 1])


def test_counts_that_do_not_belong_together_are_refused():
    _, counts = images(0, 3)
    with pytest.raises(ValueError, match='histograms'):
        dataclasses.replace(counts, pixels=counts.pixels[:2])
    with pytest.raises(ValueError, match='histograms'):
        dataclasses.replace(counts, histograms=counts.histograms[:, :, :5])


def test_sweep_equals_single_rules_one_by_one():
    _, counts = images(5, 9)
    curve = thresholds.sweep(counts, area=3000, tops=(0.2, 0.5, 0.8))
    positive = counts.true_px > 0
    for t, mean, on_positives in zip(*curve, strict=True):
        score, _ = thresholds.dice_per_image(counts, Rule(t, 3000, t))
        assert mean == pytest.approx(score.mean())
        assert on_positives == pytest.approx(score[positive].mean())
    assert thresholds.sweep(counts.take(~positive)).positive_dice is None


def test_ten_thousand_rules_on_a_thousand_images_take_seconds():
    rng = np.random.default_rng(0)
    histograms = rng.integers(0, 200, (1000, 2, BINS), np.int32)
    grid = Grid(
        tops=[k / 100 for k in range(50, 70)],
        areas=range(0, 5000, 200),
        bottoms=[k / 100 for k in range(30, 50)],
    )
    start = time.process_time()
    thresholds.search(PixelCounts(histograms, histograms.sum(axis=(1, 2))), grid=grid)
    assert time.process_time() - start < 10
