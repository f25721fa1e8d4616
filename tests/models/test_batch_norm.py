"""BatchNorm against Flax's, and against its definition in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pneumojax.models.batch_norm import BatchNorm, normalize, statistics

F = 6


def flax_batch_norm(train=True, dtype=jnp.float32):
    return nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, dtype=dtype, use_fast_variance=False)


def draw(shape=(8, 5, 4, F), seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    x, dy = (jnp.asarray(rng.normal(size=shape) + 1, dtype) for _ in range(2))
    params = {k: jnp.asarray(rng.normal(size=F), dtype) for k in ('scale', 'bias')}
    stats = {'mean': jnp.asarray(rng.normal(size=F)), 'var': jnp.asarray(rng.random(F) + 0.5)}
    return x, dy, {'params': params, 'batch_stats': stats}


def outcome(module, x, dy, variables, *, relu=False):
    """The result, the new statistics, and the gradients of the parameters and the input."""

    def f(params, x):
        y, updated = module.apply({**variables, 'params': params}, x, mutable=['batch_stats'])
        return nn.relu(y) if relu else y, updated['batch_stats']

    y, back, updated = jax.vjp(f, variables['params'], x, has_aux=True)
    return y, updated, *back(dy.astype(y.dtype))


@pytest.mark.parametrize('relu', [False, True])
def test_it_is_flaxs_batch_norm(relu):
    with jax.enable_x64(True):
        x, dy, variables = draw(dtype=jnp.float64)
        expected = outcome(flax_batch_norm(dtype=jnp.float64), x, dy, variables, relu=relu)
        actual = outcome(BatchNorm(True, None, jnp.float64, relu=relu), x, dy, variables)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-12, 1e-14), actual, expected)


def test_with_running_statistics_it_is_flaxs_to_the_last_bit():
    x, _, variables = draw()
    expected = flax_batch_norm(train=False).apply(variables, x)
    np.testing.assert_array_equal(BatchNorm(False, None, jnp.float32).apply(variables, x), expected)
    with_relu = BatchNorm(False, None, jnp.float32, relu=True).apply(variables, x)
    np.testing.assert_array_equal(with_relu, nn.relu(expected))


def test_a_checkpoint_of_flaxs_fits():
    x = jnp.zeros((1, 2, 2, F), jnp.bfloat16)
    expected = jax.eval_shape(flax_batch_norm().init, jax.random.key(0), x)
    for train in (False, True):
        module = BatchNorm(train, 'no such axis yet', jnp.bfloat16)
        assert jax.eval_shape(module.init, jax.random.key(0), x) == expected


def test_bfloat16_has_statistics_and_parameters_gradients_in_float32():
    x, dy, variables = draw(dtype=jnp.float32)
    exact = outcome(BatchNorm(True, None, jnp.float32, relu=True), x, dy, variables)
    rough = outcome(
        BatchNorm(True, None, jnp.bfloat16, relu=True), x.astype(jnp.bfloat16), dy, variables
    )
    assert (rough[0].dtype, rough[3].dtype) == (jnp.bfloat16, jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(rough[1:3])} == {jnp.dtype('float32')}
    for a, b in zip(jax.tree.leaves(rough), jax.tree.leaves(exact), strict=True):
        assert 0 < np.abs(a.astype(np.float32) - b).max() < 0.02 * np.abs(b).max()


@pytest.mark.parametrize('relu', [False, True])
def test_devices_together_have_the_statistics_and_gradients_of_the_whole_batch(relu):
    """vmap with an axis name computes what pmap does on as many devices."""
    with jax.enable_x64(True):
        x, dy, variables = draw(dtype=jnp.float64)
        x = x.at[:2].add(10)  # the first device's images are unlike the others'
        y, stats, dparams, dx = outcome(
            BatchNorm(True, None, jnp.float64, relu=relu), x, dy, variables
        )
        module = BatchNorm(True, 'devices', jnp.float64, relu=relu)
        parts = jax.vmap(lambda x, dy: outcome(module, x, dy, variables), axis_name='devices')(
            x.reshape(4, 2, *x.shape[1:]), dy.reshape(4, 2, *x.shape[1:])
        )
        actual = (
            parts[0].reshape(y.shape),
            parts[1],
            jax.tree.map(lambda of_devices: of_devices.sum(0), parts[2]),
            parts[3].reshape(dx.shape),
        )
        expected = y, jax.tree.map(lambda s: jnp.stack([s] * 4), stats), dparams, dx
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-12, 1e-12), actual, expected)


def test_one_collective_forward_and_one_backward():
    x, dy, variables = draw()
    module = BatchNorm(True, 'devices', jnp.float32, relu=True)
    trace = jax.make_jaxpr(
        lambda x, dy: outcome(module, x, dy, variables), axis_env=[('devices', 4)]
    )
    text = str(trace(x, dy))
    counts = {name: text.count(f'= {name}[') for name in ('all_gather', 'psum', 'psum_invariant')}
    assert counts == {'all_gather': 1, 'psum': 1, 'psum_invariant': 0}


def test_pixels_kept_in_channels_count_as_pixels():
    """Channels of phases, each with all features, give what the same pixels side by side give."""
    x, dy, variables = draw((4, 5, 4 * 4, F))
    scale, bias = variables['params'].values()
    zeros = jnp.zeros(F), jnp.zeros(F)

    def outcome(x, dy):
        (y, *stats), back = jax.vjp(lambda x: normalize(x, scale, bias, None, True), x)
        return y, *stats, *back((dy, *zeros))

    def close(packed, plain):
        np.testing.assert_allclose(packed, plain.reshape(packed.shape), rtol=1e-5, atol=1e-5)

    shape = 4, 5, 4, 4 * F
    jax.tree.map(close, outcome(x.reshape(shape), dy.reshape(shape)), outcome(x, dy))


@pytest.mark.parametrize('case', ['large mean', 'one image apart', 'constant'])
def test_the_variance_does_not_cancel(case):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 32, 32, 1))
    if case == 'large mean':
        x += 1e4
    elif case == 'one image apart':  # the worst that can be: the mean is far from the first image's
        x[0] += 1e4
    else:
        x[:] = 1e4
    x = x.astype(np.float32)
    mean, var = statistics(jnp.asarray(x), 1)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var(), rtol=1e-5, atol=1e-12)
