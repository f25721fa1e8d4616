"""Reliability of pixel probabilities."""

import numpy as np
import pytest

from pneumojax.drawing import figures
from pneumojax.drawing.calibration import draw_calibration
from pneumojax.evaluation import calibration


def test_calibration_in_closed_form():
    histogram = np.zeros((2, 1000), np.int64)
    histogram[:, 100] = 75, 25  # probability 0.1005, a quarter inside
    histogram[:, 149] = 100, 0
    histogram[:, 999] = 0, 50
    mean, share, pixels = calibration.reliability(histogram, groups=20)
    assert pixels[[2, 19]].tolist() == [200, 50]
    assert pixels.sum() == 250
    assert mean[2] == pytest.approx((0.1005 + 0.1495) / 2)
    assert share[2] == pytest.approx(25 / 200)
    assert np.isnan(mean[5])
    assert calibration.expected_error(histogram) == pytest.approx(0.2 * 0.0005)


def test_probabilities_that_are_true_are_calibrated(tmp_path):
    rng = np.random.default_rng(0)
    probability = rng.random(300_000)
    inside = rng.random(300_000) < probability
    edges = np.linspace(0, 1, 1001)
    histogram = np.stack([np.histogram(probability[inside == k], edges)[0] for k in (0, 1)])
    assert calibration.expected_error(histogram) < 0.005
    assert calibration.expected_error(histogram[::-1]) > 0.4
    groups, error = calibration.reliability(histogram), calibration.expected_error(histogram)
    figures.save(draw_calibration(groups, error), tmp_path / 'c.png')
    assert (tmp_path / 'c.png').stat().st_size > 10_000
