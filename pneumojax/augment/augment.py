"""Augmentation on the device: pure functions of a key, compiled and vmapped with the training step.

The list is that of the authors' later released code (Ayat-Abedalla/Ens4B-UNet, albumentations 0.3),
in their order: flip, one of three changes of intensity, one of three distortions,
shift-scale-rotate, sized crop; then, where asked for, a window.

Policy for the whole folder: images are float32 [H, W, C] in [0, 1], masks float32 [H, W, 1] in
{0, 1}, and so are all results; changes of intensity are clipped to the range and leave the mask
alone. Borders and sampling are explained in `warp`. Random operations take their key first and
their limits by keyword; the defaults are those of configs/base.py, which says where they come from.

The geometric operations of an example are drawn one by one, but image and mask are sampled only
once: positions are carried through the operations from the last to the first (see `warp`), which is
as exact and blurs once instead of four times. Under vmap nothing can be skipped, so everything is
computed and selected; an operation of probability 0 is left out when the function is traced.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float, Int, Key

from pneumojax.augment import geometric, intensity, warp
from pneumojax.augment.window import random_window

# A random operation: (key, value) -> value of the same shapes; an image, or `warp.Points`.
Change = Callable[[Any, Any], Any]


def augment_batch(
    key: Key[Array, ''],
    examples: Int[Array, ' B'],
    images: Float[Array, 'B H W C'],
    masks: Float[Array, 'B H W 1'],
    config: ml_collections.ConfigDict,
) -> tuple[Float[Array, 'B h w C'], Float[Array, 'B h w 1']]:
    """Augments a batch, one key per example.

    An example's key follows from `key` and its own index, not from its place in the batch or the
    device it is on: re-batched or resumed runs draw the same augmentations.

    Args:
      key: PRNG key of this step: `fold_in(key(seed), step)`.
      examples: index of each example in the data set.
      images: float32 in [0, 1].
      masks: float32 in {0, 1}.
      config: see `augment`.

    Returns:
      (images, masks), as `augment` gives them.
    """

    def augment_one(
        example: Int[Array, ''], image: Float[Array, 'H W C'], mask: Float[Array, 'H W 1']
    ) -> tuple[Array, Array]:
        return augment(jax.random.fold_in(key, example), image, mask, config)

    return jax.vmap(augment_one)(examples, images, masks)


def augment(
    key: Key[Array, ''],
    image: Float[Array, 'H W C'],
    mask: Float[Array, 'H W 1'],
    config: ml_collections.ConfigDict,
) -> tuple[Float[Array, 'h w C'], Float[Array, 'h w 1']]:
    """Augments one example.

    Args:
      key: PRNG key of this example at this step.
      image: float32 in [0, 1].
      mask: float32 in {0, 1}.
      config: `config.augment`; configs/base.py explains every key. Its values are plain numbers,
        known when the function is traced.

    Returns:
      (image, mask), same ranges, of the window's size where there is one. Where nothing is drawn,
      bit for bit (a window of) the input.
    """
    keys = jax.random.split(key, 6)
    changes = one_of(*_intensity_changes(config))
    image = random_apply(keys[0], config.intensity, changes, image)
    pixels = points = warp.pixels(*image.shape[:2])
    for operation_key, (probability, operation) in zip(keys[1:], _geometric(config), strict=True):
        points = random_apply(operation_key, probability, operation, points)
    if points is not pixels:
        image, mask = warp.sample(image, mask, points)
    if config.window:
        key, on_lesion = jax.random.fold_in(key, len(keys)), config.window_on_lesion
        image, mask = random_window(key, image, mask, size=config.window, on_lesion=on_lesion)
    return image, mask


def random_apply(key: Key[Array, ''], probability: float, change: Change, value: Any) -> Any:
    """`change(key, value)` with `probability`, else `value`: both are computed, one is selected.

    Args:
      key: PRNG key.
      probability: 0 to 1, known when the function is traced; for 0 nothing is computed.
      change: what to apply.
      value: any tree of arrays.

    Returns:
      A tree like `value`.
    """
    if not probability:
        return value
    draw_key, key = jax.random.split(key)
    applies = jax.random.uniform(draw_key) < probability
    return jax.tree.map(partial(jnp.where, applies), change(key, value), value)


def one_of(*changes: Change) -> Change:
    """A change that is one of several, each as likely: all are computed, one is selected."""

    def change(key: Key[Array, ''], value: Any) -> Any:
        draw_key, key = jax.random.split(key)
        results = [change(key, value) for change in changes]
        which = jax.random.randint(draw_key, (), 0, len(changes))
        return jax.tree.map(partial(jax.lax.select_n, which), *results)

    return change


def _intensity_changes(config: ml_collections.ConfigDict) -> tuple[Change, ...]:
    return (
        partial(intensity.random_contrast, limit=config.contrast),
        partial(intensity.random_gamma, limit=config.gamma),
        partial(intensity.random_brightness, limit=config.brightness),
    )


def _geometric(config: ml_collections.ConfigDict) -> tuple[tuple[float, Change], ...]:
    """Probability and operation on positions, from the last to the first."""
    affine = {name: config[name] for name in ('shift', 'scale', 'rotate', 'border')}
    return (
        (config.crop, partial(geometric.random_sized_crop, share=config.crop_min)),
        (config.affine, partial(geometric.shift_scale_rotate, **affine)),
        (config.warp, one_of(*_distortions(config))),
        (config.vertical_flip, lambda _, points: warp.flip_points(points, axis=0)),
        (config.flip, lambda _, points: warp.flip_points(points, axis=1)),
    )


def _distortions(config: ml_collections.ConfigDict) -> tuple[Change, ...]:
    alpha, sigma, affine = config.elastic_alpha, config.elastic_sigma, config.elastic_affine
    grid = {'steps': config.grid_steps, 'distort': config.grid_distort}
    lens = {'distort': config.optical_distort, 'shift': config.optical_shift}
    return (
        partial(geometric.elastic_transform, alpha=alpha, sigma=sigma, affine=affine),
        partial(geometric.grid_distortion, **grid),
        partial(geometric.optical_distortion, **lens),
    )
