"""Figures of whole images against scikit-learn and against brute force of their definitions."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_curve,
)

from pneumojax.evaluation import metrics
from pneumojax.evaluation.sections import image_level
from pneumojax.evaluation.sections.image_level import IMAGE_LEVEL, PREVALENCES, THRESHOLDS
from pneumojax.evaluation.sections.section import Measured
from tests.evaluation.tables import table

# A score of few values (ties), the class, and how often the image was drawn.
ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), min_size=1, max_size=25
)


def drawn(rows):
    """(images, weights of two samples: all once, and those given)."""
    score, positive, times = (np.array(column) for column in zip(*rows, strict=True))
    images = table(np.ones(len(rows)), positive * 9, positive * 0, score / 6)
    return images, np.stack([np.ones(len(rows)), times.astype(float)])


def repeated(images, times):
    """(scores, classes) of the images that a sample holds."""
    rows = np.repeat(np.arange(len(images)), times.astype(int))
    return images.score[rows], images.positive[rows]


@given(ROWS)
def test_average_precision_is_scikit_learns_on_every_resample(rows):
    images, weights = drawn(rows)
    with np.errstate(invalid='ignore'):
        found = image_level.average_precision(images, weights)
    for value, times in zip(found, weights, strict=True):
        score, positive = repeated(images, times)
        if positive.any():
            assert value == pytest.approx(average_precision_score(positive, score))
        else:
            assert np.isnan(value)


def best_at(score, positive, least, of_sensitivity):
    """Tries every threshold: marked from it on, and nothing at all."""
    found = []
    for threshold in (*np.unique(score), np.inf):
        marked = score >= threshold
        sensitivity, specificity = marked[positive].mean(), (~marked[~positive]).mean()
        if of_sensitivity and specificity >= least:
            found.append(sensitivity)
        if not of_sensitivity and sensitivity >= least:
            found.append(specificity)
    return max(found)


@given(ROWS, st.sampled_from([0.5, 0.75, 0.95, 0.99, 1.0]))
def test_operating_points_are_the_best_of_all_thresholds(rows, least):
    images, weights = drawn(rows)
    with np.errstate(invalid='ignore'):
        both = (
            image_level.sensitivity_at(least)(images, weights),
            image_level.specificity_at(least)(images, weights),
        )
    for found, of_sensitivity in zip(both, (True, False), strict=True):
        for value, times in zip(found, weights, strict=True):
            score, positive = repeated(images, times)
            if positive.any() and not positive.all():
                expected = best_at(score, positive, least, of_sensitivity)
                assert value == pytest.approx(expected)
            else:
                assert np.isnan(value)


def many(seed=0, n=300, probability=True):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.2
    score = 1 / (1 + np.exp(-rng.normal(size=n) - 2 * positive + 1))
    marked = score > 0.6
    patients = [f'p{i // 2}' for i in range(n)]
    images = table(np.ones(n), positive * 9, marked * 9, score, patients)
    object.__setattr__(images, 'probability', score**2 if probability else None)
    return images


def details(images, samples=300):
    found = IMAGE_LEVEL.details(Measured(images), seed=0, samples=samples)
    json.dumps(found, allow_nan=False)
    return found


def test_predictive_values_are_those_of_the_marks():
    images = many()
    (tn, fp), (fn, tp) = confusion_matrix(images.positive, images.marked)
    rows = details(images)['predictive_values']
    assert [row['prevalence'] for row in rows if not row['own']] == list(PREVALENCES)
    (own,) = [row for row in rows if row['own']]
    assert own['prevalence'] == images.positive.mean()
    assert own['ppv']['value'] == pytest.approx(tp / (tp + fp))
    assert own['npv']['value'] == pytest.approx(tn / (tn + fn))
    for row in rows:  # by counting 10,000 people
        p = row['prevalence']
        sick, healthy = 10_000 * p, 10_000 * (1 - p)
        alarms = sick * tp / (tp + fn), healthy * fp / (fp + tn)
        assert row['ppv']['value'] == pytest.approx(alarms[0] / sum(alarms))
        for name in ('ppv', 'npv'):
            assert row[name]['low'] < row[name]['value'] < row[name]['high']
    ppv, npv = ([row[name]['value'] for row in rows] for name in ('ppv', 'npv'))
    assert ppv == sorted(ppv)
    assert npv == sorted(npv, reverse=True)


def test_without_a_false_alarm_predictive_values_are_not_certain():
    positive = np.arange(60) < 12
    images = table(np.ones(60), positive * 9, positive * 9, np.where(positive, 1.0, 0.0))
    low = stats.binomtest(48, 48).proportion_ci(method='exact').low  # of specificity
    rows = details(images, samples=20_000)['predictive_values']
    for row in rows:
        p = row['prevalence']
        assert (row['ppv']['value'], row['ppv']['high']) == (1, 1)
        bound = p / (p + (1 - low) * (1 - p))  # at a sensitivity of 1, which is not certain either
        assert 0.7 * bound < row['ppv']['low'] < 1.1 * bound


def test_the_decision_curve_weighs_harm_against_benefit():
    images = many()
    curve = details(images)['decision_curve']
    positive, n = images.positive, len(images)
    np.testing.assert_allclose(curve['threshold'], THRESHOLDS)
    for i in (0, 9, 49):
        threshold = curve['threshold'][i]
        for name, acted in (
            ('probability', images.probability >= threshold), ('all', np.ones(n, bool)),
            ('marked', images.marked),
        ):  # fmt: skip
            benefit, harm = (acted & positive).sum() / n, (acted & ~positive).sum() / n
            expected = benefit - harm * threshold / (1 - threshold)
            assert curve[name][i] == pytest.approx(expected)
        assert curve['low'][i] < curve['probability'][i] < curve['high'][i]
    assert 'decision_curve' not in details(many(probability=False))


def test_exact_intervals_count_patients_and_stand_beside_the_bootstrap():
    images = many()
    found = details(images)['exact']
    patients = np.array(images.patients)
    for name, of in (('sensitivity', images.positive), ('specificity', ~images.positive)):
        n, value = len(set(patients[of])), found[name]['value']
        assert found[name]['n'] == n < of.sum()
        beta = stats.beta(value * n, (1 - value) * n + 1)
        assert found[name]['low'] == pytest.approx(beta.ppf(0.025))
        bootstrap = metrics.summarize(images, seed=0, samples=300)[name]
        assert bootstrap['value'] == value
        assert found[name]['low'] <= bootstrap['low'] + 0.02


@pytest.mark.parametrize('positive', [True, False])
def test_one_class_alone_leaves_valid_json(positive):
    of = np.full(6, positive)
    images = table(np.ones(6), of * 9, np.arange(6) % 2, np.linspace(0, 1, 6))
    found = details(images)
    assert list(found['exact']) == ['sensitivity' if positive else 'specificity']
    assert all(row['ppv']['value'] is None for row in found['predictive_values'])
    figures = metrics.with_intervals(IMAGE_LEVEL.metrics, images, seed=0, samples=10)
    assert figures['specificity_at_sensitivity_95']['value'] is None


def test_precision_and_recall_are_scikit_learns_points():
    images = many()
    recall, precision = image_level.precision_recall(images)
    expected = precision_recall_curve(images.positive, images.score)
    # scikit-learn's go from the lowest score up, and end with (1, 0), which no score gives.
    np.testing.assert_allclose(precision, expected[0][-2::-1])
    np.testing.assert_allclose(recall, expected[1][-2::-1])
    assert image_level.precision_recall(table([1.0], [0], [0], [0.5])) is None
