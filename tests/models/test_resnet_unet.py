"""The networks by themselves: sizes, types, statistics, parameter counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from pneumojax.models import build
from pneumojax.models.resnet import ResNet34
from pneumojax.models.unet import UNet, gate, upsample
from tests.models import made_up

NARROW = {'width': 8, 'stage_sizes': (1, 1, 1, 1)}


def draw(size, channels=3, batch=2, seed=0):
    return jnp.asarray(np.random.default_rng(seed).random((batch, *size, channels), np.float32))


def count(model, channels=3):
    shapes = made_up.shapes(model, channels)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes['params']))


@functools.partial(jax.jit, static_argnums=0)
def evaluate(model, variables, x):
    return model.apply(variables, x, train=False)


@functools.partial(jax.jit, static_argnums=0)
def train(model, variables, x):
    return model.apply(variables, x, train=True, mutable=['batch_stats'])


@pytest.fixture(scope='module')
def narrow():
    return UNet(**NARROW), made_up.variables(UNet(**NARROW))


def test_golden_parameter_counts():
    # segmentation_models_pytorch's Unet('resnet34') and torchvision's resnet34 have these numbers.
    assert count(UNet()) == 24_436_369
    assert count(ResNet34(num_classes=1000)) == 21_797_672
    assert count(UNet()) - count(UNet(), channels=1) == 2 * 64 * 7 * 7


def test_the_overview_names_the_published_numbers_of_parameters():
    """ResNet34 without its classifier, as torchvision counts it; smp's U-Net as a whole."""
    config = base.get_config()
    assert build.overview(config) == (
        '24,436,369 parameters: encoder 21,284,672, decoder 3,151,552, head 145'
    )
    config.model.classification_head = 'gate'
    assert build.overview(config).endswith(', head 145, image_head 513')


def test_the_gate_multiplies_probabilities():
    x, y = (jax.random.normal(jax.random.key(seed), (3, 2, 2, 1)) * 4 for seed in (0, 1))
    y = y[:, 0, 0, 0]
    product = jax.nn.sigmoid(x) * jax.nn.sigmoid(y)[:, None, None, None]
    np.testing.assert_allclose(jax.nn.sigmoid(gate(x, y)), product, rtol=1e-5)
    for sure, other in ((1000.0, -3.0), (1000.0, 1000.0), (-1000.0, 2.0), (-1000.0, -1000.0)):
        logits = jnp.full((1, 1, 1, 1), sure)
        lower = min(sure, other) if (sure, other) != (-1000.0, -1000.0) else -2000.0
        for a, b in ((logits, jnp.array([other])), (logits * 0 + other, jnp.array([sure]))):
            gated = float(gate(a, b)[0, 0, 0, 0])
            assert gated == pytest.approx(lower, abs=1.0)
    assert np.isfinite(jax.grad(lambda x: gate(x, jnp.array([-1000.0])).sum())(logits)).all()


def test_the_classification_head_reads_the_mean_of_the_deepest_map():
    plain, headed = UNet(**NARROW), UNet(**NARROW, classification_head=True)
    gated = UNet(**NARROW, classification_head=True, gated=True)
    variables, x = made_up.variables(headed), draw((64, 48))
    assert count(headed) - count(plain) == 8 * 8 + 1
    logits, image_logits = headed.apply(variables, x, train=False, parts=True)
    encoder = {kind: tree['encoder'] for kind, tree in variables.items()}
    deepest = np.asarray(ResNet34(**NARROW).apply(encoder, x, train=False)[-1], np.float64)
    head = variables['params']['image_head']
    expected = deepest.mean(axis=(1, 2)) @ head['kernel'][:, 0] + head['bias'][0]
    np.testing.assert_allclose(image_logits, expected, rtol=1e-4)

    without = {
        **variables,
        'params': {k: v for k, v in variables['params'].items() if k != 'image_head'},
    }
    np.testing.assert_array_equal(plain.apply(without, x, train=False), logits)
    np.testing.assert_array_equal(headed.apply(variables, x, train=False), logits)
    q = jax.nn.sigmoid(image_logits)[:, None, None, None]
    prediction = jax.nn.sigmoid(gated.apply(variables, x, train=False))
    np.testing.assert_allclose(prediction, jax.nn.sigmoid(logits) * q, rtol=1e-4)
    assert plain.apply(without, x, train=False, parts=True)[1] is None


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('size', [(64, 64), (75, 50), (33, 31), (1, 1)])
def test_logits_have_the_size_of_the_input(size, channels):
    model = UNet(**NARROW)
    x = draw(size, channels)
    variables = jax.eval_shape(lambda key, x: model.init(key, x, train=False), jax.random.key(0), x)
    logits = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, x)
    assert logits.shape == (2, *size, 1)
    features = jax.eval_shape(
        lambda x: ResNet34(**NARROW).init_with_output(jax.random.key(0), x, train=False)[0], x
    )
    for i, feature in enumerate(features):
        halved = tuple(-(-n // 2 ** (i + 1)) for n in size)
        assert feature.shape == (2, *halved, 8 * (1, 1, 2, 4, 8)[i])


def test_odd_sizes_give_finite_logits_in_training_and_evaluation(narrow):
    model, variables = narrow
    x = draw((33, 31))
    assert np.isfinite(evaluate(model, variables, x)).all()
    assert np.isfinite(train(model, variables, x)[0]).all()


def test_upsample_repeats_and_crops_the_far_edge():
    x = jnp.arange(6.0).reshape(1, 2, 3, 1)
    whole = np.kron(x[0, :, :, 0], np.ones((2, 2)))
    np.testing.assert_array_equal(upsample(x, 4, 6)[0, :, :, 0], whole)
    np.testing.assert_array_equal(upsample(x, 3, 5)[0, :, :, 0], whole[:3, :5])


def test_the_stem_pads_both_sides_by_three():
    """Against the definition, written as loops: padding 3, stride 2, no shift."""
    model = ResNet34(**NARROW)
    variables = made_up.variables(model, 1)
    x = draw((9, 8), 1, batch=1)
    kernel = np.asarray(variables['params']['conv1']['kernel'])  # [7, 7, 1, 8]
    padded = np.pad(x[0], ((3, 3), (3, 3), (0, 0)))
    expected = np.array(
        [
            [np.einsum('hwc,hwcf->f', padded[i : i + 7, j : j + 7], kernel) for j in (0, 2, 4, 6)]
            for i in (0, 2, 4, 6, 8)
        ]
    )
    # Statistics are 0 and 1 at first, so BatchNorm divides by sqrt(1 + 1e-5) only.
    stem = evaluate(model, variables, x)[0][0]
    np.testing.assert_allclose(stem, np.maximum(expected / np.sqrt(1 + 1e-5), 0), atol=1e-5)


@pytest.mark.slow
def test_bfloat16_keeps_parameters_statistics_and_logits_in_float32(narrow):
    _, variables = narrow
    x = draw((64, 64))
    model = UNet(**NARROW, dtype=jnp.bfloat16)
    fresh = made_up.shapes(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype('float32')}
    logits, updates = train(model, variables, x)
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype('float32')}
    encoder = {k: v['encoder'] for k, v in variables.items()}
    features = jax.eval_shape(
        lambda: ResNet34(**NARROW, dtype=jnp.bfloat16).apply(encoder, x, train=False)
    )
    assert {f.dtype for f in features} == {jnp.dtype('bfloat16')}
    exact = np.asarray(evaluate(UNet(**NARROW), variables, x))
    rough = np.asarray(evaluate(model, variables, x))
    assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max()


def test_statistics_change_in_training_and_not_in_evaluation(narrow):
    model, variables = narrow
    x = draw((64, 64))
    _, updates = jax.jit(lambda v, x: model.apply(v, x, train=False, mutable=['batch_stats']))(
        variables, x
    )
    assert all(
        (a == b).all()
        for a, b in zip(jax.tree.leaves(updates['batch_stats']),
                        jax.tree.leaves(variables['batch_stats']), strict=True)
    )  # fmt: skip
    _, updates = train(model, variables, x)
    assert all(
        (a != b).any()
        for a, b in zip(jax.tree.leaves(updates['batch_stats']),
                        jax.tree.leaves(variables['batch_stats']), strict=True)
    )  # fmt: skip


def test_the_first_statistics_are_a_tenth_of_the_batchs(narrow):
    model, variables = narrow
    x = draw((64, 64))
    _, updates = train(model, variables, x)
    kernel = variables['params']['encoder']['conv1']['kernel']
    y = jax.lax.conv_general_dilated(
        x, kernel, (2, 2), ((3, 3), (3, 3)), dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    stats = updates['batch_stats']['encoder']['bn1']
    y = np.asarray(y, np.float64)
    np.testing.assert_allclose(stats['mean'], 0.1 * y.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(stats['var'], 0.9 + 0.1 * y.var((0, 1, 2)), rtol=1e-5)


@pytest.mark.slow
def test_jit_equals_no_jit(narrow):
    model, variables = narrow
    x = draw((75, 50))
    plain = model.apply(variables, x, train=False)
    jitted = evaluate(model, variables, x)
    np.testing.assert_allclose(jitted, plain, atol=1e-5 * np.abs(plain).max())


@pytest.mark.slow
def test_statistics_over_an_axis_are_those_of_the_whole_batch(narrow):
    _, variables = narrow
    x = draw((64, 64), batch=4)

    logits, updates = train(UNet(**NARROW), variables, x)
    synchronised = UNet(**NARROW, axis_name='batch')
    halves = jax.vmap(lambda x: train(synchronised, variables, x), axis_name='batch')(
        x.reshape(2, 2, 64, 64, 3)
    )
    scale = np.abs(logits).max()
    np.testing.assert_allclose(halves[0].reshape(logits.shape), logits, atol=1e-4 * scale)
    for each, whole in zip(jax.tree.leaves(halves[1]), jax.tree.leaves(updates), strict=True):
        np.testing.assert_allclose(each[0], each[1])
        np.testing.assert_allclose(each[0], whole, rtol=1e-3, atol=1e-5)
    # In evaluation no axis is needed.
    evaluated = evaluate(synchronised, variables, x)
    np.testing.assert_array_equal(evaluated, evaluate(UNet(**NARROW), variables, x))
