"""Flips against a loop in NumPy, with a network that is anything but symmetric."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

from configs import base
from pneumojax.models import build, tta

H, W = 6, 6
RAMP = np.random.default_rng(1).normal(size=(H, W, 1)).astype(np.float32)


def apply(images):
    """A toy network with logits that depend on the place and on the neighbour to one side."""
    return 3 * images[..., :1] * RAMP + 2 * jnp.roll(images[..., 1:2], (1, 2), axis=(1, 2)) - 1


def images(batch=3):
    return jnp.asarray(np.random.default_rng(0).random((batch, H, W, 3)), jnp.float32)


def numpy_predict(images, flips):
    """One image, one view at a time, with NumPy's slices and SciPy's sigmoid."""
    views = {'horizontal': np.s_[:, ::-1], 'vertical': np.s_[::-1, :]}
    result = []
    for image in images:
        total = expit(np.asarray(apply(image[None]))[0].astype(np.float64))
        for flip in flips:
            turn = views[flip]
            total = total + expit(np.asarray(apply(image[turn][None]), np.float64))[0][turn]
        result.append(total / (1 + len(flips)))
    return np.stack(result)


@pytest.mark.parametrize(
    'flips', [(), ('horizontal',), ('vertical',), ('horizontal', 'vertical')], ids=str
)
def test_predictions_are_the_mean_over_the_flips(flips):
    predicted = tta.predict(apply, images(), flips)
    assert predicted.dtype == jnp.float32
    assert predicted.shape == (3, H, W, 1)
    np.testing.assert_allclose(predicted, numpy_predict(images(), flips), atol=1e-6)
    # The toy network tells the views apart, so the comparison would notice a wrong axis.
    if flips:
        assert np.abs(predicted - numpy_predict(images(), ())).max() > 0.1


def test_without_flips_it_is_the_sigmoid():
    expected = jax.nn.sigmoid(apply(images()))
    np.testing.assert_allclose(tta.predict(apply, images(), ()), expected, atol=1e-6)


@pytest.mark.parametrize(('flip', 'axis'), [('horizontal', 2), ('vertical', 1)])
def test_one_flip_makes_any_network_equivariant_to_it(flip, axis):
    x = images()
    of_flipped = tta.predict(apply, jnp.flip(x, axis), (flip,))
    np.testing.assert_allclose(of_flipped, np.flip(tta.predict(apply, x, (flip,)), axis), atol=1e-6)
    plain = tta.predict(apply, jnp.flip(x, axis), ())
    assert np.abs(plain - np.flip(tta.predict(apply, x, ()), axis)).max() > 0.1


@pytest.mark.slow
def test_make_predict_normalises_grey_images_and_averages_the_networks_flips():
    config = base.get_config()
    config.model.width, config.model.stage_sizes = 4, (1, 1, 1, 1)
    config.model.normalization = 'imagenet'
    model, variables = build.make_model(config), build.initial_variables(config)
    grey = np.random.default_rng(2).integers(0, 256, (2, 32, 32), np.uint8)
    predicted = jax.jit(tta.make_predict(config, model, ('horizontal',)))(variables, grey)
    assert (predicted.shape, predicted.dtype) == ((2, 32, 32), jnp.float32)

    inputs = np.repeat(grey[..., None] / np.float32(255), 3, axis=-1)
    inputs = (inputs - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    network = jax.jit(lambda x: model.apply(variables, x, train=False))
    plain, turned = (expit(network(np.float32(x))) for x in (inputs, inputs[:, :, ::-1]))
    expected = (plain + turned[:, :, ::-1])[..., 0] / 2
    np.testing.assert_allclose(predicted, expected, atol=1e-5)
    assert np.abs(expected - plain[..., 0]).max() > 1e-3
