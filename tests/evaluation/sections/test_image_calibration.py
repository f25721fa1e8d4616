"""Calibration of image probabilities against scikit-learn, closed forms and simulated truth."""

import dataclasses
import json

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from pneumojax.evaluation import image_probability, metrics
from pneumojax.evaluation.sections import image_calibration, registry
from pneumojax.evaluation.sections.image_calibration import IMAGE_CALIBRATION
from pneumojax.evaluation.sections.section import Measured
from pneumojax.evaluation.statistics import logistic
from tests.evaluation.tables import table
from tests.evaluation.test_image_probability import regression, simulated


def images(n=1000, seed=0):
    rng = np.random.default_rng(seed)
    score, positive, _ = simulated(rng, n)
    found = table(np.ones(n), positive * 9, positive * 9, score)
    probability = image_probability.cross_fit(score, positive, rng.integers(0, 5, n))
    return dataclasses.replace(found, probability=probability)


def values(of, samples=60):
    return metrics.with_intervals(IMAGE_CALIBRATION.metrics, of, seed=0, samples=samples)


def test_figures_are_scikit_learns_before_and_after():
    of = images()
    found = values(of)
    for prefix, p in (('', of.probability), ('score_', of.score)):
        figure = {k: found[prefix + k] for k in ('brier', 'ece', 'slope', 'intercept')}
        x = logistic.log_odds(p)
        assert figure['brier']['value'] == pytest.approx(brier_score_loss(of.positive, p))
        assert figure['slope']['value'] == pytest.approx(regression(x, of.positive)[0])
        share, mean = calibration_curve(of.positive, p, n_bins=10, strategy='quantile')
        error = np.abs(share - mean).mean()  # 100 images in each bin
        assert figure['ece']['value'] == pytest.approx(error)
        shifted = logistic.expit(x + figure['intercept']['value'])
        assert shifted.mean() == pytest.approx(of.positive.mean())
        for f in figure.values():
            assert f['low'] < f['high']
            assert f['low'] <= f['value'] <= f['high'] or f is figure['ece']  # biased upwards


def test_calibration_repairs_what_is_too_sure_and_too_high():
    found = values(images(4000))
    assert found['score_slope']['high'] < 0.6
    assert found['score_intercept']['high'] < 0
    assert found['slope']['low'] < 1 < found['slope']['high']
    assert found['intercept']['low'] < 0 < found['intercept']['high']
    assert found['brier']['high'] < found['score_brier']['value']


def test_the_error_by_chance_is_that_of_probabilities_that_are_right():
    rng = np.random.default_rng(0)
    truth = np.sort(rng.beta(1, 4, 300))
    errors = []
    for _ in range(300):
        of = table(np.ones(300), rng.random(300) < truth, np.ones(300), truth)
        measure = image_calibration.expected_error(lambda of: of.score)
        errors.append(measure(of, np.ones((1, 300)))[0])
    by_chance = image_calibration.error_by_chance(truth, seed=1)
    assert by_chance == pytest.approx(np.mean(errors), rel=0.05)


def test_bins_hold_equally_many_images_and_never_split_a_tie():
    p = np.random.default_rng(0).random(200)
    assert np.bincount(image_calibration.bins_of(p)).tolist() == [20] * 10
    tied = np.repeat([0.1, 0.5, 0.9], [150, 30, 20])
    assert all(len(set(image_calibration.bins_of(tied)[tied == v])) == 1 for v in (0.1, 0.5, 0.9))
    rows = image_calibration.reliability(tied, tied > 0.3)
    assert sum(row['n'] for row in rows) == 200
    assert all(row['low'] <= row['share'] <= row['high'] for row in rows)


def test_figures_are_undefined_where_there_is_no_answer():
    n = 40
    positive = np.arange(n) < 10
    of = table(np.ones(n), positive * 9, positive * 9, np.where(positive, 0.9, 0.1))
    of = dataclasses.replace(of, probability=of.score)
    found = values(of)
    assert found['slope']['value'] is None  # the classes are separated
    assert found['intercept']['value'] is not None
    json.dumps(found, allow_nan=False)
    alone = dataclasses.replace(of, true_px=np.zeros(n, int))
    assert values(alone)['intercept']['value'] is None


def test_the_section_is_there_where_images_are_calibrated():
    of = images(200)
    report = registry.summarize(Measured(of), seed=0, samples=20)['calibration']
    assert set(IMAGE_CALIBRATION.metrics) < set(report)
    assert sum(row['n'] for row in report['reliability']) == 200
    json.dumps(report, allow_nan=False)
    bare = dataclasses.replace(of, probability=None)
    assert 'calibration' not in registry.summarize(Measured(bare), seed=0, samples=20)
