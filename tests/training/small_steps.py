"""A network of width 4, batches of images of 32 pixels, and the loss by numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage
from scipy.special import expit

from configs import base
from pneumojax.data.sampling import Plan
from pneumojax.models import build

SIZE, BATCH = 32, 8
RATE = 0.05
PLAN = Plan(np.zeros(40 * BATCH, np.int32), np.array([10, 20, 30, 40], np.int32), BATCH)
# Operations that are quick to compile; test_augment.py has all of them.
SOME = ('flip', 'affine', 'crop')


def make_config(probability=0.0, **changes):
    config = base.get_config()
    config.num_epochs, config.batch_size, config.image_size = 4, BATCH, SIZE
    config.model.width, config.model.stage_sizes, config.model.channels = 4, (1, 1, 1, 1), 1
    config.optimizer.learning_rate = config.optimizer.final_learning_rate = RATE
    config.averaging.start, config.averaging.every_steps = 0, 1
    for name in ('flip', 'vertical_flip', 'intensity', 'warp', 'affine', 'crop'):
        config.augment[name] = probability if name in SOME else 0.0
    config.update_from_flattened_dict({k.replace('__', '.'): v for k, v in changes.items()})
    return config


@functools.cache
def initial_variables():
    return jax.device_get(build.initial_variables(make_config()))


def batch(seed=0):
    """Smooth noise, whose bright parts are the masks."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=(BATCH, SIZE, SIZE)), (0, 4, 4))
    low, high = noise.min(), noise.max()
    return {
        'image': ((noise - low) / (high - low) * 255).astype(np.uint8),
        'mask': (noise > np.quantile(noise, 0.8)).astype(np.uint8),
        'example': rng.permutation(100)[:BATCH].astype(np.int32),
    }


def evaluation_batch():
    """With an image without lesion, one that is nothing but lesion, and two rows of padding."""
    rows = batch(5)
    rows['mask'][1], rows['mask'][2] = 0, 1
    rows['valid'] = np.array([True] * 6 + [False] * 2)
    return rows


@functools.cache
def network(train):
    """uint8 images -> logits of the network with its initial weights and given statistics."""
    model = build.make_model(make_config())

    def apply(batch_stats, images):
        variables = {'params': initial_variables()['params'], 'batch_stats': batch_stats}
        inputs = images[..., None].astype(jnp.float32) / 255
        return model.apply(variables, inputs, train=train, mutable=['batch_stats'])

    return jax.jit(apply)


def assert_close(actual, expected, atol=1e-5, rtol=1e-5):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=rtol), actual, expected
    )


def numpy_loss(logits, masks):
    """BCE plus soft Dice over all that is given."""
    x, t = np.asarray(logits, np.float64), np.asarray(masks, np.float64).reshape(logits.shape)
    p = expit(x)
    bce = np.mean(np.logaddexp(0, x) - t * x)
    return bce + 1 - (2 * np.sum(p * t) + 1) / (np.sum(p) + np.sum(t) + 1)
