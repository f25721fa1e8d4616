"""Averages of weights against NumPy means of the weights that a random walk went through."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pneumojax.training import averaging

START = {'encoder': {'w': np.arange(6.0).reshape(2, 3)}, 'b': np.array(-1.0)}


def walk(transform, steps, *, jit=False, seed=0):
    """Random updates; returns the weights after each (float64), and the states after each."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), START)
    state = transform.init(params)

    def step(updates, state, params):
        updates, state = transform.update(updates, state, params)
        return optax.apply_updates(params, updates), state

    step = jax.jit(step) if jit else step
    weights, states = [], []
    for _ in range(steps):
        updates = jax.tree.map(lambda x: rng.normal(size=np.shape(x)).astype(np.float32), START)
        params, state = step(updates, state, params)
        weights.append(jax.tree.map(lambda x: np.asarray(x, np.float64), params))
        states.append(state)
    return weights, states


def mean(trees):
    return jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *trees)


def assert_close(actual, expected, atol=1e-6):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(partial(np.testing.assert_allclose, atol=atol, rtol=1e-6), actual, expected)


@pytest.mark.parametrize('jit', [False, True])
def test_swa_is_the_equal_mean_of_its_members(jit):
    members = [4, 5, 9, 12]
    transform = averaging.stochastic_weight_average(
        lambda count: jnp.any(jnp.array(members) == count)
    )
    weights, states = walk(transform, 14, jit=jit)
    for done, state in enumerate(states, start=1):
        seen = [m for m in members if m <= done]
        # Before the first member the average is the weights themselves.
        assert_close(state.average, mean([weights[m - 1] for m in seen] or [weights[done - 1]]))
        assert (state.count, state.members) == (done, len(seen))
    assert {x.dtype for x in jax.tree.leaves(states[-1].average)} == {jnp.dtype('float32')}


@pytest.mark.parametrize('jit', [False, True])
@pytest.mark.parametrize('start', [0, 5])
def test_ema_is_the_geometric_sum_of_the_weights_since_its_start(start, jit):
    decay, steps = 0.8, 12
    weights, states = walk(averaging.exponential_moving_average(decay, start), steps, jit=jit)
    weights = [START, *weights]
    for done, state in enumerate(states, start=1):
        n = max(0, done - start)
        share = [(1 - decay) * decay ** (n - 1 - i) for i in range(n)]
        shares = [decay**n, *share] if n else [1.0]
        assert sum(shares) == pytest.approx(1)
        used = weights[start : done + 1] if n else weights[done : done + 1]
        expected = jax.tree.map(lambda *x: np.tensordot(shares, np.stack(x), 1), *used)  # noqa: B023
        assert_close(state.average, expected)
        assert state.members == n


@pytest.mark.parametrize(
    'transform',
    [
        averaging.stochastic_weight_average(lambda count: count > 1),
        averaging.exponential_moving_average(0.9),
    ],
)
def test_updates_pass_through_and_weights_are_needed(transform):
    params = jax.tree.map(jnp.asarray, START)
    updates = jax.tree.map(lambda x: x + 0.3, params)
    state = transform.init(params)
    for _ in range(3):
        passed, state = transform.update(updates, state, params)
        assert jax.tree.map(lambda a, b: bool((a == b).all()), passed, updates) == jax.tree.map(
            lambda _: True, START
        )
    with pytest.raises(ValueError, match='needs them'):
        transform.update(updates, state)


def test_inside_a_chain_it_averages_what_the_weights_really_become():
    transform = optax.chain(
        optax.sgd(0.1, momentum=0.9),
        averaging.stochastic_weight_average(lambda count: count >= 3),
    )
    weights, states = walk(transform, 8)
    assert_close(averaging.find_average(states[-1]).average, mean(weights[2:]))


def test_inside_multi_steps_it_counts_updates_not_batches():
    chain = optax.chain(
        optax.sgd(0.1), averaging.stochastic_weight_average(lambda count: count >= 2)
    )
    weights, states = walk(optax.MultiSteps(chain, 3).gradient_transformation(), 12, jit=True)
    average = averaging.find_average(states[-1])
    assert_close(average.average, mean([weights[i] for i in (5, 8, 11)]))
    assert (average.count, average.members) == (4, 3)


def test_an_optimizer_without_average_has_none():
    params = jax.tree.map(jnp.asarray, START)
    assert averaging.find_average(optax.adam(1e-3).init(params)) is None


def test_the_average_shares_no_buffer_with_the_weights():
    params = jax.tree.map(jnp.asarray, START)
    before = jax.tree.map(np.array, params)
    state = averaging.exponential_moving_average(0.5).init(params)
    jax.jit(lambda x: jax.tree.map(lambda y: y + 1, x), donate_argnums=0)(params)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))
    assert_close(state.average, before)
