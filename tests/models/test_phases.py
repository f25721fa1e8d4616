"""Convolutions on phases against plain ones, and the network as a TPU computes it against a CPU's.

Kernels are those of the definitions in float64, so that a misplaced weight cannot hide in rounding.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from pneumojax.models import phases
from pneumojax.models.unet import UNet
from tests.models import made_up

OPTIONS = {'dimension_numbers': ('NHWC', 'HWIO', 'NHWC')}
PLAIN = functools.partial(
    lax.conv_general_dilated, window_strides=(1, 1), padding=((1, 1), (1, 1)), **OPTIONS
)
NARROW = UNet(width=8, stage_sizes=(1, 1, 1, 1), dtype=jnp.float64)
SIZES = [(2, 2), (6, 4), (8, 10)]


@pytest.fixture
def tpu(monkeypatch):
    """What is chosen by platform is chosen for a TPU, and computed here."""
    chosen = []

    def choose(*args, default, tpu=None, **_):
        if tpu is None:
            return default(*args)
        chosen.append(tpu)
        return tpu(*args)

    monkeypatch.setattr(lax, 'platform_dependent', choose)
    return chosen


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def test_channels_hold_each_square_row_by_row():
    x = np.arange(2 * 4 * 6 * 3, dtype=np.float32).reshape(2, 4, 6, 3)
    y = phases.space_to_depth(jnp.asarray(x))
    for row, column in np.ndindex(2, 3):
        square = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        np.testing.assert_array_equal(y[:, row, column], square.reshape(2, 12))
    np.testing.assert_array_equal(phases.depth_to_space(y), x)


@pytest.mark.parametrize('size', SIZES)
def test_a_convolution_before_upsampling_is_one_after_it(size):
    with jax.enable_x64(True):
        x, kernel = draw(2, *size, 3), draw(3, 3, 3, 5, seed=1)
        doubled = jnp.asarray(np.repeat(np.repeat(x, 2, axis=1), 2, axis=2))
        actual = phases.upsampled_convolution(x, kernel, (1, 1), ((1, 1), (1, 1)), **OPTIONS)
        expected = PLAIN(doubled, kernel)
        np.testing.assert_allclose(phases.depth_to_space(actual), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('size', SIZES)
def test_a_convolution_on_phases_is_the_plain_one(size, tpu):
    with jax.enable_x64(True):
        x, kernel = draw(2, *size, 3), draw(3, 3, 3, 5, seed=1)
        actual = phases.convolution(x, kernel, (1, 1), ((1, 1), (1, 1)), **OPTIONS)
        np.testing.assert_allclose(actual, PLAIN(x, kernel), rtol=1e-12, atol=1e-12)
        assert len(tpu) == 1


def outcome(variables, size, train):
    """Logits, statistics and gradients of a narrow U-Net in float64."""
    x, weight = draw(2, *size, 1), draw(2, *size, 1, seed=1)

    def f(params):
        y, updated = NARROW.apply(
            {**variables, 'params': params}, x, train=train, mutable=['batch_stats']
        )
        return jnp.sum(y * weight), (y, updated)

    return jax.jit(jax.grad(f, has_aux=True))(variables['params'])


@pytest.mark.slow
@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('size', [(64, 32), (33, 32)])
def test_a_tpu_computes_the_same_network(size, train, request):
    with jax.enable_x64(True):
        variables = made_up.variables(NARROW, 1)
        variables = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), variables)
        expected = outcome(variables, size, train)
        chosen = request.getfixturevalue('tpu')
        actual = outcome(variables, size, train)
    # The pooling; and conv2, bn2 and the head, where the size is even.
    assert len(chosen) == (4 if size == (64, 32) else 1)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(b).max())
