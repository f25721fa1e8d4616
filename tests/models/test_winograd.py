"""Winograd's convolutions beside XLA's own, values and both gradients."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from pneumojax.models import resnet, winograd
from pneumojax.models.unet import UNet
from tests.models import made_up


def plain(x, kernel):
    numbers = ('NHWC', 'HWIO', 'NHWC')
    return lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=numbers)


@partial(jax.jit, static_argnums=0)
def both(function, x, kernel, gradient):
    """The value and its gradients by x and the kernel."""
    value, transpose = jax.vjp(function, x, kernel)
    return value, *transpose(gradient)


def draw(size, dtype, channels=(5, 7), batch=2):
    random = np.random.default_rng(0)
    shapes = (batch, *size, channels[0]), (3, 3, *channels), (batch, *size, channels[1])
    return [jnp.asarray(random.normal(size=shape), dtype) for shape in shapes]


def largest_difference(ours, theirs):
    """The largest of each array, as a share of the largest value there."""
    return max(
        float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))
        for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize(
    'size',
    [(1, 1), (1, 5), (3, 4), (4, 4), (5, 5), (8, 8), (13, 2)],
)
def test_values_and_gradients_are_the_convolutions(size):
    """In float64 to rounding, at sizes that fill the tiles and sizes that do not."""
    with jax.enable_x64(True):
        arrays = draw(size, jnp.float64)
        assert largest_difference(both(winograd.convolve, *arrays), both(plain, *arrays)) < 1e-12


@pytest.mark.parametrize('size', [(2, 2), (9, 12)])
def test_float32_rounds_to_a_hundred_thousandth(size):
    arrays = draw(size, jnp.float32, channels=(64, 64))
    assert largest_difference(both(winograd.convolve, *arrays), both(plain, *arrays)) < 2e-5


def test_bfloat16_is_computed_in_float32_and_rounded_once():
    x, kernel, gradient = draw((8, 8), jnp.bfloat16, channels=(64, 64))
    ours = both(winograd.convolve, x, kernel, gradient)
    theirs = both(plain, *(a.astype(jnp.float32) for a in (x, kernel, gradient)))
    assert all(value.dtype == jnp.bfloat16 for value in ours)
    assert largest_difference([a.astype(jnp.float32) for a in ours], theirs) < 2.0**-8


@pytest.mark.parametrize(
    ('kernel', 'strides', 'padding', 'channels', 'dilation', 'used'),
    [
        ((3, 3), 1, 1, 64, 1, True),
        ((3, 3), 2, 1, 64, 1, False),
        ((1, 1), 1, 0, 64, 1, False),
        ((3, 3), 1, 0, 64, 1, False),
        ((3, 3), 1, 'SAME', 64, 1, False),
        ((3, 3), 1, 2, 64, 2, False),
        ((3, 3), 1, 1, 63, 1, False),
    ],
)
def test_it_takes_the_convolutions_it_is_made_for(
    kernel, strides, padding, channels, dilation, used, monkeypatch
):
    """Flax's layer gives the same with it, and only such layers go through it."""
    monkeypatch.setattr(winograd, 'MIN_PRODUCTS', 0)
    calls = []
    own = winograd.convolve
    monkeypatch.setattr(winograd, 'convolve', lambda *a: calls.append(a) or own(*a))
    options = {'strides': strides, 'padding': padding, 'kernel_dilation': dilation}
    layer = nn.Conv(64, kernel, **options)
    x = draw((6, 6), jnp.float32, channels=(channels, 1))[0]
    variables = layer.init(jax.random.key(0), x)
    ours = nn.Conv(64, kernel, conv_general_dilated=winograd.conv_general_dilated, **options)
    np.testing.assert_allclose(ours.apply(variables, x), layer.apply(variables, x), atol=2e-5)
    assert bool(calls) == used


@pytest.mark.parametrize(
    ('size', 'batch', 'used'), [(16, 10, False), (16, 11, True), (3, 1, False), (2, 1, True)]
)
def test_little_work_is_left_to_xla_unless_the_map_is_tiny(size, batch, used, monkeypatch):
    """11 images of 16 x 16 pixels take 104 million products of 64 x 64 channels."""
    calls = []
    own = winograd.convolve
    monkeypatch.setattr(winograd, 'convolve', lambda *a: calls.append(a) or own(*a))
    shapes = (batch, size, size, 64), (3, 3, 64, 64)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    numbers = ('NHWC', 'HWIO', 'NHWC')
    options = {'padding': ((1, 1), (1, 1)), 'dimension_numbers': numbers}
    convolution = partial(winograd.conv_general_dilated, window_strides=(1, 1), **options)
    assert jax.eval_shape(convolution, *arrays).shape == shapes[0]
    assert bool(calls) == used


def lowered(train, platform, width=64):
    model = UNet(width=width, stage_sizes=(1, 1, 1, 1))
    variables = made_up.shapes(model, 1)
    images = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)
    function = jax.jit(lambda v, x: model.apply(v, x, train=train, mutable=['batch_stats']))
    return function.trace(variables, images).lower(lowering_platforms=(platform,)).as_text()


def test_only_training_on_a_cpu_uses_it():
    """Predictions, exports and other chips keep as many convolutions as the network has."""
    plain_ones = lowered(False, 'cpu').count('stablehlo.convolution')
    assert lowered(True, 'cpu').count('stablehlo.convolution') < plain_ones
    for platform in ('cuda', 'tpu'):
        assert lowered(True, platform).count('stablehlo.convolution') == plain_ones


def test_a_block_of_training_is_that_of_the_plain_convolutions(monkeypatch):
    """In float64: outputs, batch statistics and gradients, and it does go through Winograd's."""
    monkeypatch.setattr(winograd, 'MIN_PRODUCTS', 0)
    with jax.enable_x64(True):
        block = resnet.BasicBlock(64, dtype=jnp.float64)
        x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6, 6, 64)))
        variables = block.init(jax.random.key(0), x, train=False)
        variables = jax.tree.map(lambda a: a.astype(jnp.float64), variables)
        calls = []

        def outcome(convolve):
            def counted(*arrays):
                calls.append(convolve)
                return convolve(*arrays)

            def loss(params):
                given = {**variables, 'params': params}
                y, updated = block.apply(given, x, train=True, mutable=['batch_stats'])
                return jnp.mean(jnp.square(y)), (y, updated)

            monkeypatch.setattr(winograd, 'convolve', counted)
            return jax.value_and_grad(loss, has_aux=True)(variables['params'])

        ours, theirs = outcome(winograd.convolve), outcome(plain)
        assert len(calls) == 4
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-11 * max(1.0, np.abs(b).max()))
