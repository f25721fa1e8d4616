"""Folds: disjoint, complete, balanced at least as well as scikit-learn's, and repeatable."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from pneumojax.data.datasets import example as example_lib
from pneumojax.data.datasets import splits
from pneumojax.errors import UsageError

rows = st.lists(st.tuples(st.booleans(), st.sampled_from('abcdefghij')), min_size=1, max_size=60)


def made_up(seed, patients=400):
    """Patients with 1 to 8 images, some of whose patients are ill: like SIIM's."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(
        np.arange(patients), rng.choice([1, 2, 3, 8], patients, p=[0.5, 0.3, 0.1, 0.1])
    )
    positive = rng.random(len(owners)) < (rng.random(patients) ** 4)[owners]
    return positive, [f'p{owner}' for owner in owners]


def spread(folds, weights, num_folds):
    return np.ptp(np.bincount(folds, weights, minlength=num_folds))


@hypothesis.given(rows, st.integers(2, 6), st.integers(0, 3))
def test_every_image_is_validated_once_and_no_patient_is_on_two_sides(drawn, num_folds, seed):
    hypothesis.assume(len({patient for _, patient in drawn}) >= num_folds)
    examples = [
        example_lib.Example(f'i{i}', '', ('0 1',) if positive else (), patient)
        for i, (positive, patient) in enumerate(drawn)
    ]
    held_out = []
    for fold in range(num_folds):
        train, validation = splits.split(examples, fold, num_folds, seed)
        assert len(train)
        assert len(validation)
        np.testing.assert_array_equal(np.sort(np.r_[train, validation]), np.arange(len(drawn)))
        np.testing.assert_array_equal(train, np.sort(train))
        np.testing.assert_array_equal(validation, np.sort(validation))
        assert not {drawn[i][1] for i in train} & {drawn[i][1] for i in validation}
        held_out.extend(validation)
    assert sorted(held_out) == list(range(len(drawn)))


@hypothesis.given(rows, st.integers(2, 6), st.randoms(use_true_random=False))
def test_the_order_of_the_images_has_no_influence(drawn, num_folds, random):
    hypothesis.assume(len({patient for _, patient in drawn}) >= num_folds)
    order = list(range(len(drawn)))
    random.shuffle(order)
    positive, patients = zip(*drawn, strict=True)
    folds = splits.assign_folds(positive, patients, num_folds, 0)
    shuffled = splits.assign_folds(
        [positive[i] for i in order], [patients[i] for i in order], num_folds, 0
    )
    np.testing.assert_array_equal(shuffled, folds[order])


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('num_folds', [2, 5, 10])
def test_balance_is_no_worse_than_scikit_learns(seed, num_folds):
    positive, patients = made_up(seed)
    folds = splits.assign_folds(positive, patients, num_folds, seed)
    theirs = np.empty(len(patients), int)
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(positive, positive, patients)):
        theirs[held_out] = fold
    for weights in (positive, ~positive):
        ours_apart = spread(folds, weights, num_folds)
        assert ours_apart <= max(2, spread(theirs, weights, num_folds))


def test_single_images_are_dealt_to_within_one():
    positive = np.arange(103) % 4 == 0
    folds = splits.assign_folds(positive, [f'p{i}' for i in range(103)], 5, 7)
    assert spread(folds, positive, 5) <= 1
    assert spread(folds, np.ones(103), 5) <= 1


def test_the_seed_decides():
    positive, patients = made_up(0)
    first = splits.assign_folds(positive, patients, 5, 0)
    np.testing.assert_array_equal(first, splits.assign_folds(positive, patients, 5, 0))
    other = splits.assign_folds(positive, patients, 5, 1)
    assert np.mean(first != other) > 0.5


def test_folds_stay_what_they_were():
    """Hard-coded: a published figure names its fold, so the assignment must not drift."""
    positive = [True, False, False, True, False, True, False, False]
    folds = splits.assign_folds(positive, list('aabbcdef'), 3, 0)
    assert folds.tolist() == [1, 1, 0, 0, 0, 2, 2, 1]


def test_without_positives_the_images_are_balanced():
    folds = splits.assign_folds([False] * 20, [f'p{i // 2}' for i in range(20)], 5, 0)
    assert np.bincount(folds).tolist() == [4] * 5


EXAMPLES = [example_lib.Example(f'i{i}', '', (), f'somebody{i}') for i in range(4)]


@pytest.mark.parametrize(
    ('fold', 'num_folds', 'expected'),
    [
        (5, 4, 'data.fold is 5; expected 0 to 3'),
        (-1, 4, 'data.fold is -1'),
        (0.5, 4, 'data.fold is 0.5'),
        (0, 5, 'data.num_folds is 5, but there are only 4 patients'),
        (0, 1, 'data.num_folds is 1; expected at least 2'),
        (0, 0, 'data.num_folds is 0'),
    ],
)
def test_values_out_of_range_name_their_key(fold, num_folds, expected):
    with pytest.raises(UsageError, match=expected):
        splits.split(EXAMPLES, fold, num_folds, 0)


def test_a_patient_on_both_sides_stops_the_program_unnamed():
    with pytest.raises(RuntimeError, match='1 patients') as error:
        splits.require_disjoint(['Doe', 'Roe'], ['Doe', 'Poe'])
    assert 'Doe' not in str(error.value)
    splits.require_disjoint(['Roe'], ['Doe'])


def test_split_checks_what_it_returns(monkeypatch):
    """The guard is a part of `split`, whatever the assignment does."""
    monkeypatch.setattr(splits, 'assign_folds', lambda *_: np.array([0, 1, 0, 1]))
    same = [example_lib.Example(f'i{i}', '', (), 'somebody') for i in range(4)]
    with pytest.raises(RuntimeError, match='both training and validation'):
        splits.split(same, 0, 2, 0)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match='2 labels for 1'):
        splits.assign_folds([True, False], ['a'], 2, 0)
