"""Permutations against all exchanges of a small case, and p-values against their definition."""

import itertools

import numpy as np
import pytest

from pneumojax.evaluation.statistics import permutation


def test_only_patients_alike_are_exchanged_and_all_of_them():
    patients = ['a', 'b', 'b', 'c', 'c', 'd', 'e', 'e']
    positive = np.array([True, True, False, False, True, True, True, True])
    kind = {p: tuple(sorted(positive[[q == p for q in patients]])) for p in patients}
    rng, seen = np.random.default_rng(0), set()
    for rows in permutation.permutations(rng, patients, positive, 450):
        for source in rows:
            assert sorted(source) == list(range(8))
            np.testing.assert_array_equal(positive[source], positive)
            for patient in kind:  # whole patients
                mine = [i for i, p in enumerate(patients) if p == patient]
                (whose,) = {patients[source[i]] for i in mine}
                assert kind[whose] == kind[patient]
            seen.add(tuple(source))
    # a and d have one positive image; b and c one of each; e is alone.
    assert seen == {
        (*first, *second, *last)
        for first, second, last in [
            ((a,), bc, (d, 6, 7))
            for a, d in itertools.permutations((0, 5))
            for bc in ((1, 2, 3, 4), (4, 3, 2, 1))
        ]
    }


def test_p_values_are_shares_of_permutations():
    rng = np.random.default_rng(0)
    permuted = rng.normal(size=(99, 5)) * [1, 10, 0.1, 1, 0] + [0, 5, 0, 0, 3]
    observed = np.array([0.3, 45.0, -0.25, -1.5, 3.0])
    alone, adjusted = permutation.p_values(observed, permuted)
    everything = np.vstack([observed, permuted])
    t = np.abs(everything - everything.mean(axis=0)) / [*everything.std(axis=0)[:4], 1]
    for k in range(5):
        assert alone[k] == np.mean([row[k] >= t[0, k] - 1e-9 for row in t])
        assert adjusted[k] == np.mean([max(row) >= t[0, k] - 1e-9 for row in t])
    assert alone[1] == 0.01
    assert adjusted[4] == 1
    assert (adjusted >= alone).all()


def test_a_family_without_differences_raises_an_alarm_at_the_stated_rate():
    """Statistics that depend on each other, 1,000 families, at a level of 0.05."""
    rng, alarms, single = np.random.default_rng(1), 0, 0
    for _ in range(1000):
        common = rng.normal(size=(100, 1))
        statistics = common + rng.normal(size=(100, 8))
        alone, adjusted = permutation.p_values(statistics[0], statistics[1:])
        alarms += adjusted.min() <= 0.05
        single += alone.min() <= 0.05
    assert alarms / 1000 == pytest.approx(0.05, abs=0.02)
    assert single / 1000 > 0.15  # what it is adjusted for
