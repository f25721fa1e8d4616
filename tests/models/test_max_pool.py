"""Max-pooling and its gradient beside XLA's own, bit for bit."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pneumojax.models.max_pool import max_pool


def theirs(x):
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('size', [(1, 1), (1, 2), (2, 3), (4, 4), (5, 7), (8, 6), (9, 9)])
@pytest.mark.parametrize('values', [3, 1000])  # of three values, most windows hold ties
def test_values_and_gradients_are_xlas(size, values, dtype):
    random = np.random.default_rng(0)
    x = jnp.asarray(random.integers(-values, values, (2, *size, 3)), dtype)
    y, transpose = jax.vjp(theirs, x)
    gradient = jnp.asarray(
        random.integers(-8, 8, y.shape), dtype
    )  # sums of whole numbers are exact
    ours, ours_transpose = jax.vjp(max_pool, x)
    np.testing.assert_array_equal(ours, y)
    np.testing.assert_array_equal(ours_transpose(gradient)[0], transpose(gradient)[0])


@pytest.mark.parametrize('platform', ['cpu', 'cuda'])
def test_no_scatter_is_left_in_the_gradient(platform):
    x = jnp.zeros((1, 8, 8, 1))

    def scatters(pool):
        traced = jax.jit(jax.grad(lambda x: jnp.sum(pool(x)))).trace(x)
        return traced.lower(lowering_platforms=(platform,)).as_text().count('scatter')

    assert scatters(theirs) > 0
    assert scatters(max_pool) == 0
