"""Calibrated image probabilities against scikit-learn and against simulated truth."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from pneumojax.evaluation import image_probability
from pneumojax.evaluation.image_probability import LEAST_SLOPE, Calibration
from pneumojax.evaluation.statistics import logistic


def regression(x, positive, weights=None):
    """(slope, intercept) by scikit-learn, without a penalty."""
    scale = x.std()
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000, solver='newton-cholesky')
    model.fit(((x - x.mean()) / scale)[:, None], positive, sample_weight=weights)
    slope = model.coef_[0, 0] / scale
    return slope, model.intercept_[0] - slope * x.mean()


@pytest.mark.parametrize('seed', range(8))
def test_the_regression_is_scikit_learns_in_every_sample(seed):
    rng = np.random.default_rng(seed)
    positive = rng.random(60) < 0.3
    x = 10 ** rng.uniform(-2, 2) * (rng.normal(size=60) + positive) + rng.normal()
    weights = rng.integers(0, 3, (5, 60)).astype(float)
    slopes, intercepts = logistic.fit(x, positive.astype(float), weights)
    for slope, intercept, drawn in zip(slopes, intercepts, weights, strict=True):
        kept = drawn > 0
        expected = regression(x[kept], positive[kept], drawn[kept])
        np.testing.assert_allclose((slope, intercept), expected, rtol=1e-5, atol=1e-6)


def test_an_intercept_alone_makes_the_mean_right():
    rng = np.random.default_rng(0)
    x, positive = rng.normal(size=50) * 3, rng.random(50) < 0.2
    _, (intercept,) = logistic.fit(x, positive.astype(float), np.ones((1, 50)), 1.0)
    assert logistic.expit(x + intercept).mean() == pytest.approx(positive.mean())


@pytest.mark.parametrize(
    ('x', 'positive'),
    [
        ([0, 1, 2, 3], [0, 0, 1, 1]),  # separated
        ([0, 1, 1, 2], [0, 0, 1, 1]),  # all but separated
        ([0, 1, 2, 3], [1, 1, 0, 0]),  # the wrong way round
        ([0, 1, 2, 3], [1, 1, 1, 1]),
        ([2, 2, 2, 2], [0, 1, 0, 1]),
    ],
)
def test_a_regression_without_a_maximum_is_undefined(x, positive):
    found = logistic.fit(np.array(x, float), np.array(positive, float), np.ones((1, 4)))
    assert np.isnan(found).all()


def test_the_fit_is_scikit_learns_on_smoothed_targets():
    rng = np.random.default_rng(1)
    positive = rng.random(200) < 0.2
    score = logistic.expit(rng.normal(size=200) * 3 + 2 * positive)
    found = image_probability.fit(score, positive)
    n, p = len(positive), positive.sum()
    target = np.where(positive, (p + 1) / (p + 2), 1 / (n - p + 2))
    # scikit-learn takes no target between 0 and 1: each image is both, with two weights.
    x = np.tile(logistic.log_odds(score), 2)
    expected = regression(x, np.repeat([1, 0], n), np.append(target, 1 - target))
    np.testing.assert_allclose((found.slope, found.intercept), expected, rtol=1e-5)
    assert (found.images, found.positives) == (n, p)


scores = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=2, max_size=30)


@given(scores)
def test_probabilities_are_finite_and_rank_as_scores_do(rows):
    score, positive = (np.array(column) for column in zip(*rows, strict=True))
    calibration = image_probability.fit(score.astype(float), positive)
    if positive.all() or not positive.any():
        assert calibration is None
        return
    probability = calibration(score)
    assert ((probability > 0) & (probability < 1)).all()
    order = np.argsort(score, kind='stable')
    assert (np.diff(probability[order]) >= 0).all()
    apart = np.diff(score[order]) > 1e-5
    assert (np.diff(probability[order])[apart] > 0).all()
    stated = json.loads(json.dumps(dataclasses.asdict(calibration)))
    assert Calibration.from_json(stated) == calibration


def test_scores_that_separate_and_scores_that_know_nothing():
    positive = np.arange(40) < 8
    perfect = image_probability.fit(np.where(positive, 1.0, 0.0), positive)
    np.testing.assert_allclose(perfect(np.array([1.0, 0.0])), [9 / 10, 1 / 34], rtol=1e-6)
    for score in (np.full(40, 0.3), np.where(positive, 0.0, 1.0)):
        calibration = image_probability.fit(score, positive)
        assert calibration.slope == LEAST_SLOPE
        assert calibration(score).mean() == pytest.approx((8 * 9 / 10 + 32 / 34) / 40)


def simulated(rng, count):
    """Scores that are too sure and too high, and the probabilities that they stand for."""
    truth = logistic.expit(rng.normal(-1.8, 1.6, count))
    score = logistic.expit(2.5 * np.log(truth / (1 - truth)) + 2)
    return score, rng.random(count) < truth, truth


def test_cross_fitted_probabilities_are_as_good_as_the_truth():
    rng = np.random.default_rng(2)
    score, positive, truth = simulated(rng, 4000)
    parts = rng.integers(0, 5, 4000)
    probability = image_probability.cross_fit(score, positive, parts)
    best = brier_score_loss(positive, truth)
    assert brier_score_loss(positive, score) > best + 0.02
    # Two parameters cost 1 / n of an image's variance each: far below this.
    assert brier_score_loss(positive, probability) == pytest.approx(best, abs=5e-4)
    np.testing.assert_allclose(probability, truth, atol=0.06)
    slope, intercept = regression(logistic.log_odds(probability), positive)
    assert (slope, intercept) == (pytest.approx(1, abs=0.06), pytest.approx(0, abs=0.1))
    for part in range(5):  # each part by the others, and its ranking stays
        here = parts == part
        other = image_probability.fit(score[~here], positive[~here])
        np.testing.assert_array_equal(probability[here], other(score[here]))
        assert roc_auc_score(positive[here], probability[here]) == pytest.approx(
            roc_auc_score(positive[here], score[here])
        )


def test_a_part_is_not_calibrated_by_its_own_labels():
    rng = np.random.default_rng(3)
    score, positive, _ = simulated(rng, 200)
    parts = np.arange(200) % 5
    before = image_probability.cross_fit(score, positive, parts)
    after = image_probability.cross_fit(score, positive ^ (parts == 2), parts)
    same = before == after
    assert same[parts == 2].all()
    assert not same[parts != 2].any()


def test_without_a_class_in_the_other_parts_nothing_is_calibrated():
    score, parts = np.linspace(0, 1, 10), np.arange(10) % 2
    assert image_probability.cross_fit(score, parts == 1, parts) is None
    assert image_probability.cross_fit(score, np.zeros(10, bool), parts) is None


@pytest.mark.parametrize(
    'stated',
    [{}, {'slope': 0}, {'slope': float('nan')}, {'intercept': float('inf')}, {'positives': 0},
     {'positives': 100}, {'slope': '1'}, {'slope': None}],
)  # fmt: skip
def test_a_damaged_calibration_is_refused(stated):
    sound = {'slope': 1.0, 'intercept': 0.0, 'images': 100, 'positives': 22}
    assert Calibration.from_json(sound) == Calibration(1.0, 0.0, 100, 22)
    assert Calibration.from_json(None) is None
    with pytest.raises((KeyError, TypeError, ValueError)):
        Calibration.from_json(stated and sound | stated)
