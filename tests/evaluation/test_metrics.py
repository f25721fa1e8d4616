"""Scores against closed forms, scikit-learn and simulated truth."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score, roc_curve

from pneumojax.evaluation import metrics
from pneumojax.evaluation.wording import METRIC_NAMES
from pneumojax.runs.run_files import FIGURES
from tests.evaluation.tables import table


def test_dice_closed_forms():
    square = np.zeros((8, 8), np.uint8)
    square[2:6, 2:6] = 1
    shifted = np.roll(square, 2, axis=1)
    empty = np.zeros((8, 8), np.uint8)
    assert metrics.dice(square, square) == 1
    assert metrics.dice(square, shifted) == 2 * 8 / 32
    assert metrics.dice(square, empty) == metrics.dice(empty, square) == 0
    assert metrics.dice(empty, empty) == 1


def test_dice_is_the_pixelwise_f1_score_in_every_dtype():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 16, 9)) < 0.3
    expected = f1_score(b.ravel(), a.ravel())
    for predicted, true in ((a, b), (a * 255, b * np.uint8(255)), (a * 0.5, b.astype(np.int32))):
        assert metrics.dice(predicted, true) == pytest.approx(expected, rel=1e-12)


def test_dice_refuses_broadcasting():
    with pytest.raises(ValueError, match=r'\(8, 8\).*\(8, 1\)'):
        metrics.dice(np.ones((8, 8)), np.ones((8, 1)))


def test_image_score_is_the_level_that_a_thousandth_of_the_pixels_reach():
    rng = np.random.default_rng(1)
    probability = rng.permutation(10_000).reshape(100, 100) / 10_000
    score = metrics.image_score(probability)
    assert np.count_nonzero(probability >= score) == 10
    part = probability.ravel()[:1500]
    assert np.count_nonzero(part >= metrics.image_score(part)) == 2  # 1.5, rounded up
    assert metrics.image_score(np.array([[0.2, 0.9]])) == 0.9  # at least one pixel
    stray = np.zeros((100, 100), np.float32)
    stray[:3, :3] = 1
    assert metrics.image_score(stray) == 0
    stray[0, 3] = 1
    assert metrics.image_score(stray) == 1


def auc(scores, positive):
    images = table(np.ones(len(scores)), positive, positive, np.array(scores, float))
    return metrics.summarize(images, seed=0, samples=1)['auc']['value']


@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: len({positive for _, positive in rows}) == 2
    )
)
def test_auc_and_roc_equal_scikit_learn_with_ties(rows):
    scores, positive = (np.array(column) for column in zip(*rows, strict=True))
    scores = scores / 6
    assert auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))
    expected = roc_curve(positive, scores, drop_intermediate=False)[:2]
    np.testing.assert_allclose(metrics.roc(scores, positive), expected)


def test_auc_without_one_of_the_classes_is_none():
    assert auc([0.1, 0.2], [True, True]) is None
    assert auc([0.1, 0.2], [False, False]) is None
    assert metrics.roc(np.array([0.1, 0.2]), np.array([False, False])) is None


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match='finite'):
        auc([0.1, np.nan], [True, False])


def test_sensitivity_and_specificity_count_images():
    def value(name, true_px, predicted_px):
        zeros = np.zeros(len(true_px))
        images = table(zeros, true_px, predicted_px, zeros)
        return metrics.summarize(images, seed=0, samples=1)[name]['value']

    true_px, predicted_px = [5, 5, 5, 0, 0], [9, 0, 1, 0, 3]
    assert value('sensitivity', true_px, predicted_px) == 2 / 3
    assert value('specificity', true_px, predicted_px) == 1 / 2
    assert value('sensitivity', [0], [3]) is None
    assert value('specificity', [3], [3]) is None


def test_every_metric_has_a_name_in_reports_and_is_checked_when_read():
    assert tuple(metrics.METRICS) == tuple(METRIC_NAMES) == FIGURES


def simulated(seed, n=300):
    """Columns of images as an evaluation would give them."""
    rng = np.random.default_rng(seed)
    true_px = rng.integers(1, 5000, n) * (rng.random(n) < 0.3)
    predicted_px = rng.integers(1, 5000, n) * (rng.random(n) < np.where(true_px, 0.8, 0.1))
    dice = np.where(true_px > 0, (predicted_px > 0) * rng.random(n), predicted_px == 0)
    return dice, true_px, predicted_px, rng.random(n) + 0.3 * (true_px > 0)


def test_summary_values_are_the_plain_definitions():
    dice, true_px, predicted_px, scores = columns = simulated(0)
    summary = metrics.summarize(table(*columns), seed=0, samples=50)
    positive = true_px > 0
    expected = {
        'mean_dice': dice.mean(),
        'all_empty_dice': (~positive).mean(),
        'positive_dice': dice[positive].mean(),
        'sensitivity': (predicted_px > 0)[positive].mean(),
        'specificity': (predicted_px == 0)[~positive].mean(),
        'auc': roc_auc_score(positive, scores),
    }
    assert set(summary) == {*expected, 'n', 'n_positive'}
    assert (summary['n'], summary['n_positive']) == (300, positive.sum())
    for name, value in expected.items():
        assert summary[name]['value'] == pytest.approx(value)
        assert summary[name]['low'] < value < summary[name]['high']


def test_mean_is_made_of_specificity_and_positive_dice():
    summary = metrics.summarize(table(*simulated(3)), seed=0, samples=50)
    value = {name: summary[name]['value'] for name in metrics.METRICS}
    prevalence = summary['n_positive'] / summary['n']
    assert value['mean_dice'] == pytest.approx(
        (1 - prevalence) * value['specificity'] + prevalence * value['positive_dice']
    )
    assert value['all_empty_dice'] == pytest.approx(1 - prevalence)


def test_bootstrap_equals_a_loop_that_draws_patients():
    columns = simulated(4, n=60)
    patients = np.array([f'patient {i // 2}' for i in range(60)])
    summary = metrics.summarize(table(*columns, patients), seed=5, samples=4000)

    rng = np.random.default_rng(99)  # another stream: the distributions agree, not the draws
    drawn = []
    for _ in range(4000):
        rows = np.concatenate([[2 * p, 2 * p + 1] for p in rng.integers(30, size=30)])
        resampled = [column[rows] for column in columns]
        positive = resampled[1] > 0
        higher = resampled[3][positive][:, None] > resampled[3][~positive]
        drawn.append([resampled[0].mean(), higher.mean()])
    for name, values in zip(('mean_dice', 'auc'), np.array(drawn).T, strict=True):
        low, high = np.percentile(values, [2.5, 97.5])
        width = high - low
        assert summary[name]['low'] == pytest.approx(low, abs=0.06 * width)
        assert summary[name]['high'] == pytest.approx(high, abs=0.06 * width)


def test_interval_covers_the_truth_as_often_as_it_says():
    truth, hits = 0.6, 0  # each image scores 1 with this chance
    for seed in range(200):
        dice = (np.random.default_rng(seed).random(120) < truth).astype(float)
        images = table(dice, np.ones(120), dice, dice)
        interval = metrics.summarize(images, seed=seed, samples=300)['mean_dice']
        hits += interval['low'] <= truth <= interval['high']
    assert 0.90 <= hits / 200 <= 0.99  # 0.95 +- 3 standard errors


def test_interval_of_patients_is_wider_where_their_images_agree():
    one = simulated(6, n=100)
    four = [np.repeat(column, 4) for column in one]
    patients = np.repeat(np.arange(100).astype(str), 4)

    def width(patients=None):
        interval = metrics.summarize(table(*four, patients), seed=0)['mean_dice']
        return interval['high'] - interval['low']

    # Four copies of a patient hold no more than one: the interval must not shrink by half.
    assert width(patients) / width() == pytest.approx(2, rel=0.1)


def test_same_seed_same_summary_and_valid_json_without_positives():
    columns = [np.ones(5), np.zeros(5, int), np.zeros(5, int), np.linspace(0, 1, 5)]
    summary = metrics.summarize(table(*columns), seed=1, samples=20)
    assert summary == metrics.summarize(table(*columns), seed=1, samples=20)
    undefined = {'value': None, 'low': None, 'high': None}
    assert summary['positive_dice'] == summary['sensitivity'] == summary['auc'] == undefined
    low = stats.binomtest(5, 5).proportion_ci(method='exact').low
    assert summary['specificity'] == {'value': 1, 'low': pytest.approx(low), 'high': 1}
    json.dumps(summary, allow_nan=False)


def test_resamples_without_a_positive_image_are_left_out():
    columns = [np.array([0.5, 1, 1]), np.array([9, 0, 0]), np.array([9, 0, 0]), np.arange(3.0)]
    interval = metrics.summarize(table(*columns), seed=1, samples=200)['positive_dice']
    assert interval == {'value': 0.5, 'low': 0.5, 'high': 0.5}
    assert not any(math.isnan(value) for value in interval.values())


@pytest.mark.parametrize('shorter', range(1, 4))
def test_columns_of_unequal_length_are_refused(shorter):
    columns = list(simulated(0, n=10))
    columns[shorter] = columns[shorter][:-1]
    with pytest.raises(ValueError, match='one value per image'):
        table(*columns)
