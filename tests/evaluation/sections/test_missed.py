"""The missed share against its definition, patient by patient."""

import numpy as np
import pytest

from pneumojax.evaluation import metrics
from pneumojax.evaluation.sections import missed
from tests.evaluation.tables import table


def images(seed, n=200):
    rng = np.random.default_rng(seed)
    true = rng.integers(1, 5000, n) * (rng.random(n) < 0.6)
    found = rng.binomial(true, rng.random(n))
    predicted = found + rng.integers(0, 300, n) * (rng.random(n) < 0.8)
    total = true + predicted
    dice = np.where(total > 0, 2 * found / np.maximum(total, 1), 1.0)
    patients = np.array([f'p{k}' for k in rng.integers(n // 3, size=n)])
    return table(dice, true, predicted, rng.random(n), patients), found


@pytest.mark.parametrize('seed', range(5))
def test_the_missed_share_follows_from_the_columns(seed):
    results, found = images(seed)
    patients = np.array(results.patients)
    times = {p: k % 3 for k, p in enumerate(np.unique(patients))}
    weights = np.array([np.ones(len(results)), [times[p] for p in patients]], float)
    expected = []
    for counted in (dict.fromkeys(times, 1), times):
        total, n = 0.0, 0
        for patient, count in counted.items():
            mine = (patients == patient) & results.positive
            if mine.any():
                total += count * np.mean(1 - found[mine] / results.true_px[mine])
                n += count
        expected.append(total / n)
    computed = metrics.compute(results, weights, missed.MISSED.metrics)[:, 0]
    np.testing.assert_allclose(computed, expected, rtol=1e-12)


def test_it_is_undefined_without_a_lesion():
    healthy = table([1.0, 0.0], [0, 0], [0, 9], [0.1, 0.2])
    assert np.isnan(metrics.compute(healthy, None, missed.MISSED.metrics)).all()
