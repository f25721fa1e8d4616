"""Exact intervals against scipy's, and where metrics use them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pneumojax.evaluation import metrics
from pneumojax.evaluation.statistics import proportions
from pneumojax.evaluation.wording import value_and_interval
from tests.evaluation.tables import table


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_exact_interval_is_scipys(case):
    hits, count = case
    expected = stats.binomtest(hits, count).proportion_ci(method='exact')
    found = proportions.exact_interval(hits / count, count)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_it_holds_the_truth_in_at_least_95_of_100_samples():
    rng = np.random.default_rng(0)
    for truth, count in ((0.98, 14), (0.7, 40), (0.99, 200)):
        intervals = [proportions.exact_interval(k / count, count) for k in range(count + 1)]
        drawn = rng.binomial(count, truth, 4000)
        low, high = np.array(intervals)[drawn].T
        assert np.mean((low <= truth) & (truth <= high)) >= 0.945


def images(marked, patients=None):
    true_px = np.array([9, 9, 9, 9, 0, 0, 0, 0])
    return table(np.ones(8), true_px, np.array(marked) * 9, np.linspace(0, 1, 8), patients)


def test_a_share_of_0_or_1_has_an_interval_and_says_of_which_kind():
    marked = images([1, 1, 1, 1, 1, 1, 1, 1])
    found = metrics.with_intervals(metrics.METRICS, marked, seed=0, samples=50)
    low, high = stats.binomtest(4, 4).proportion_ci(method='exact')
    assert found['sensitivity'] == {
        'value': 1, 'low': pytest.approx(low), 'high': high, 'interval': 'exact',
    }  # fmt: skip
    assert found['specificity'] == {
        'value': 0, 'low': 0, 'high': pytest.approx(1 - low), 'interval': 'exact',
    }  # fmt: skip
    assert value_and_interval(found['sensitivity']) == f'1.000 ({low:.3f} to 1.000, exact)'
    # The six figures of evaluation.json are read by others, who know three keys.
    six = metrics.summarize(marked, seed=0, samples=50)
    assert six['sensitivity'] == {'value': 1, 'low': pytest.approx(low), 'high': high}
    between = metrics.with_intervals(
        metrics.METRICS, images([1, 1, 1, 0, 1, 0, 0, 0]), seed=0, samples=50
    )
    assert not any('interval' in between[name] for name in metrics.METRICS)


def test_images_of_one_patient_count_once():
    patients = ['a', 'a', 'b', 'b', 'c', 'd', 'e', 'e']
    found = metrics.summarize(images([1, 1, 1, 1, 0, 0, 0, 0], patients), seed=0, samples=50)
    lows = [stats.binomtest(n, n).proportion_ci(method='exact').low for n in (2, 3)]
    assert [found[k]['low'] for k in ('sensitivity', 'specificity')] == pytest.approx(lows)
