import functools

import jax
import numpy as np
import pytest

from pneumojax.config_schema import NORMALIZATIONS
from pneumojax.models import pretrained
from pneumojax.models.normalize import normalize
from pneumojax.models.resnet import ResNet34
from tests.models import made_up


def grey(size=(40, 36), batch=2):
    return np.random.default_rng(0).random((batch, *size, 1), np.float32)


def test_imagenet_by_hand():
    out = np.asarray(normalize(np.full((1, 1, 1, 1), 0.5, np.float32), 'imagenet', 3))
    expected = [(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    np.testing.assert_allclose(out[0, 0, 0], expected, rtol=1e-5)


def test_one_pair_for_grey():
    out = normalize(np.full((1, 1, 1, 1), 0.5, np.float32), 'imagenet_grey', 3)
    np.testing.assert_allclose(out[0, 0, 0], [(0.5 - 0.449) / 0.226] * 3, rtol=1e-5)
    x = grey()
    one = normalize(x, 'imagenet', 1)
    np.testing.assert_array_equal(one, normalize(x, 'imagenet_grey', 1))


def test_symmetric_goes_from_minus_one_to_one():
    out = normalize(np.array([0, 64, 255], np.uint8).reshape(1, 3, 1, 1), 'symmetric', 3)
    expected = np.repeat([[-1], [2 * 64 / 255 - 1], [1]], 3, axis=1)
    np.testing.assert_allclose(out[0, :, 0], expected, atol=1e-6)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('kind', NORMALIZATIONS)
def test_shape_type_and_bytes(kind, channels):
    x = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    out = normalize(x, kind, channels)
    assert out.shape == (1, 16, 16, channels)
    assert out.dtype == np.float32
    floats = normalize(x.astype(np.float32) / 255, kind, channels)
    np.testing.assert_allclose(out, floats, atol=1e-6)
    if kind == 'unit':
        np.testing.assert_allclose(out, np.repeat(x / 255, channels, -1), atol=1e-7)


@pytest.mark.parametrize(
    ('images', 'kind', 'channels'),
    [
        (np.zeros((1, 4, 4, 3), np.float32), 'unit', 3),
        (np.zeros((4, 4, 1), np.float32), 'unit', 3),
        (np.zeros((1, 4, 4, 1), np.uint16), 'unit', 3),
        (np.zeros((1, 4, 4, 1), np.float32), 'caffe', 3),
        (np.zeros((1, 4, 4, 1), np.float32), 'unit', 2),
    ],
)
def test_refusals(images, kind, channels):
    with pytest.raises(ValueError, match=r'expected'):
        normalize(images, kind, channels)


@functools.partial(jax.jit, static_argnums=0)
def evaluate(model, variables, x):
    return model.apply(variables, x, train=False)


@pytest.fixture(scope='module')
def networks():
    """A narrow ResNet with three input channels, and the same with its stem summed to one."""
    model = ResNet34(width=8, stage_sizes=(1, 1, 1, 1))
    three = made_up.variables(model)
    one = jax.tree.map(lambda leaf: leaf, three)
    return model, three, pretrained.with_channels(one, 1)


@pytest.mark.parametrize('kind', ['unit', 'imagenet_grey'])
def test_one_channel_gives_the_features_of_three_equal_ones(networks, kind):
    model, three, one = networks
    assert one['params']['conv1']['kernel'].shape == (7, 7, 1, 8)
    x = grey()
    expected = evaluate(model, three, normalize(x, kind, 3))
    actual = evaluate(model, one, normalize(x, kind, 1))
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())


def test_per_channel_imagenet_differs_as_the_docstring_says(networks):
    model, three, one = networks
    x = grey()
    expected = evaluate(model, three, normalize(x, 'imagenet', 3))[0]
    actual = evaluate(model, one, normalize(x, 'imagenet', 1))[0]
    assert np.abs(actual - expected).max() > 1e-3


def test_back_to_three_channels(networks):
    model, three, one = networks
    again = pretrained.with_channels(jax.tree.map(lambda leaf: leaf, one), 3)
    x = normalize(grey(), 'unit', 3)
    expected = evaluate(model, three, x)[-1]
    np.testing.assert_allclose(
        evaluate(model, again, x)[-1], expected, atol=1e-5 * np.abs(expected).max()
    )
