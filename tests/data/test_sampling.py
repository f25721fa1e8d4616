"""The order of training images: properties that hold for any data set."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pneumojax.data import sampling

labels = st.lists(st.booleans(), min_size=1, max_size=60).map(np.array)
seeds = st.integers(0, 2**31 - 1)
shares = st.floats(0.05, 1.0)


def epochs_of(plan):
    """The order of each epoch, cut at `epoch_ends`."""
    return np.split(plan.order, plan.epoch_ends[:-1] * plan.batch_size)


@settings(deadline=None)
@given(labels, st.integers(1, 5), st.integers(1, 20), seeds, st.lists(shares, max_size=3))
def test_epochs_are_whole_batches_of_known_images(positive, num_epochs, batch, seed, share):
    plan = sampling.make_plan(
        positive, num_epochs=num_epochs, batch_size=batch, seed=seed, positive_share=share
    )
    assert len(plan.epoch_ends) == num_epochs
    assert len(plan.order) == plan.total_steps * batch
    assert plan.order.dtype == np.int32
    epochs = epochs_of(plan)
    for order in epochs:
        assert len(order) % batch == 0
        assert len(order) >= batch
        assert order.min() >= 0
        assert order.max() < len(positive)


@settings(deadline=None)
@given(labels, st.integers(1, 20), seeds)
def test_without_a_share_no_image_comes_twice_and_less_than_a_batch_is_left_out(
    positive, batch, seed
):
    plan = sampling.make_plan(positive, num_epochs=3, batch_size=batch, seed=seed)
    for order in epochs_of(plan):
        counts = np.bincount(order, minlength=len(positive))
        if len(positive) >= batch:
            assert counts.max() == 1
            assert len(positive) - counts.sum() < batch
        else:  # repeated to fill one batch, everyone about equally often
            assert len(order) == batch
            assert counts.max() - counts.min() <= 1


@settings(deadline=None)
@given(labels, seeds, shares)
def test_a_share_takes_all_positives_and_the_negatives_it_leaves(positive, seed, share):
    order = sampling.epoch_order(np.random.default_rng(seed), positive, share)
    assert len(np.unique(order)) == len(order)
    if not positive.any():
        assert len(order) == len(positive)
        return
    assert set(np.flatnonzero(positive)) <= set(order)
    num_positive, num_negative = positive.sum(), len(order) - positive.sum()
    if num_negative < (~positive).sum():
        # One image more or less would not be closer: n / (n + negatives) is the share.
        assert abs(num_negative - num_positive * (1 / share - 1)) <= 0.5 + 1e-9
    else:
        assert num_positive / len(order) >= share * (1 - 1 / len(order)) - 1e-9


@settings(deadline=None)
@given(st.integers(1, 30), seeds, shares)
def test_whole_batches_cost_a_sampled_epoch_less_than_one_batch(batch, seed, share):
    positive = np.arange(80) % 4 == 0
    plan = sampling.make_plan(
        positive, num_epochs=2, batch_size=batch, seed=seed, positive_share=[share]
    )
    wanted = 20 + min(60, round(20 * (1 - share) / share))
    for order in epochs_of(plan):
        if wanted >= batch:
            assert len(np.unique(order)) == len(order)
            assert 0 <= wanted - len(order) < batch
            assert 20 - positive[order].sum() <= wanted - len(order)


def test_the_negatives_of_a_sampled_epoch_change():
    positive = np.arange(200) < 20
    plan = sampling.make_plan(positive, num_epochs=8, batch_size=4, seed=0, positive_share=[0.5])
    seen = [frozenset(order[~positive[order]]) for order in epochs_of(plan)]
    assert len(set(seen)) == 8
    assert len(frozenset().union(*seen)) > 80  # of 180: 8 draws of 20 meet about 108


@given(seeds, seeds)
def test_the_seed_decides(one, other):
    positive = np.arange(40) % 3 == 0
    arguments = {'num_epochs': 3, 'batch_size': 4, 'positive_share': (0.6, 0.5)}
    first = sampling.make_plan(positive, seed=one, **arguments)
    again = sampling.make_plan(list(positive), seed=one, **arguments)
    np.testing.assert_array_equal(first.order, again.order)
    np.testing.assert_array_equal(first.epoch_ends, again.epoch_ends)
    if one != other:
        assert not np.array_equal(
            first.order, sampling.make_plan(positive, seed=other, **arguments).order
        )


def test_epochs_differ_and_do_not_depend_on_how_many_there_are():
    positive = np.zeros(50, bool)
    short = sampling.make_plan(positive, num_epochs=3, batch_size=8, seed=5)
    long = sampling.make_plan(positive, num_epochs=6, batch_size=8, seed=5)
    np.testing.assert_array_equal(long.order[: len(short.order)], short.order)
    assert len({tuple(order) for order in epochs_of(long)}) == 6
    left_out = {frozenset(range(50)) - frozenset(order) for order in epochs_of(long)}
    assert len(left_out) > 1


@settings(deadline=None)
@given(labels, st.integers(1, 6), st.integers(1, 9), st.lists(shares, max_size=3))
def test_the_epoch_of_a_step_agrees_with_the_ends(positive, num_epochs, batch, share):
    plan = sampling.make_plan(
        positive, num_epochs=num_epochs, batch_size=batch, seed=0, positive_share=share
    )
    expected, start = [], 0
    for epoch, end in enumerate(plan.epoch_ends):
        expected += [epoch] * (end - start)
        start = end
    assert [plan.epoch(step) for step in range(plan.total_steps)] == expected


@pytest.mark.parametrize(
    ('num_epochs', 'shares', 'expected'),
    [
        (6, (0.8, 0.6, 0.4), [0.8, 0.8, 0.6, 0.6, 0.4, 0.4]),
        (5, (0.8, 0.4), [0.8, 0.8, 0.8, 0.4, 0.4]),
        (2, (0.8, 0.6, 0.4), [0.8, 0.6]),
        (3, (0.5,), [0.5] * 3),
        (2, (), [None, None]),
    ],
)
def test_shares_divide_the_epochs(num_epochs, shares, expected):
    assert [
        sampling.positive_share_at(e, num_epochs, shares) for e in range(num_epochs)
    ] == expected
