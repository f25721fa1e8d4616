"""Augmentation on the device: pure functions of a key, compiled with the training step.

The list is that of the authors' later released code (Ayat-Abedalla/Ens4B-UNet, albumentations 0.3),
in their order: flip, one of three changes of intensity, one of three distortions,
shift-scale-rotate, sized crop; then, where asked for, a window.

Policy for the whole folder: images are grey, float32 [H, W] in [0, 1], masks float32 [H, W] in
{0, 1}, and so are all results; changes of intensity are clipped to the range and leave the mask
alone. Borders and sampling are explained in `warp`. Operations take what was drawn first and their
limits by keyword; draws are uniform in [-1, 1), and draws of 0 change nothing. The defaults are
those of configs/base.py, which says where they come from.

Image and mask are sampled only once: positions are carried through the geometric operations from
the last to the first (see `warp`), which is as exact and blurs once instead of three times. Nothing
is sampled where none was drawn, and an operation of probability 0 is left out when the function is
traced.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from pneumojax.augment import geometric, intensity, warp
from pneumojax.augment.warp import Points
from pneumojax.augment.window import random_window

# Probabilities of `config.augment`: of what may happen to an example.
CHANCES = ('flip', 'vertical_flip', 'intensity', 'warp', 'affine', 'crop')


class Move(NamedTuple):
    """A geometric operation on positions, and whether it was drawn: if not, it moves nothing."""

    drawn: Bool[Array, '']
    operation: Callable[[Points], Points]


def augment_batch(
    key: Key[Array, ''],
    examples: Int[Array, ' B'],
    images: Float[Array, 'B H W 1'],
    masks: Float[Array, 'B H W 1'],
    config: ml_collections.ConfigDict,
) -> tuple[Float[Array, 'B h w 1'], Float[Array, 'B h w 1']]:
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
        example: Int[Array, ''], image: Float[Array, 'H W'], mask: Float[Array, 'H W']
    ) -> tuple[Array, Array]:
        return augment(jax.random.fold_in(key, example), image, mask, config)

    def one_by_one(*batch: Array) -> tuple[Array, Array]:
        return jax.lax.map(lambda example: augment_one(*example), batch)

    # One by one, an example skips what it did not draw. A GPU would wait for the host at each of
    # these decisions, and for each small kernel: there all is computed at once, then selected.
    at_once = jax.vmap(augment_one)
    images, masks = jax.lax.platform_dependent(
        examples, images[..., 0], masks[..., 0], cuda=at_once, rocm=at_once, default=one_by_one
    )
    return images[..., None], masks[..., None]


def augment(
    key: Key[Array, ''],
    image: Float[Array, 'H W'],
    mask: Float[Array, 'H W'],
    config: ml_collections.ConfigDict,
) -> tuple[Float[Array, 'h w'], Float[Array, 'h w']]:
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
    numbers_key, noise_key, window_key = jax.random.split(key, 3)
    chances, draws = _draw(numbers_key, config)
    for name, axis in (('flip', 1), ('vertical_flip', 0)):
        if config[name]:
            flips = chances[name] < config[name]
            image, mask = (jnp.where(flips, jnp.flip(x, axis), x) for x in (image, mask))
    if config.intensity:
        changes = _intensity_changes(config)
        which = choose(chances['intensity'], config.intensity, len(changes))
        image = jax.lax.switch(which, [*changes, lambda _, same: same], draws['intensity'], image)
    moves = _moves(chances, draws, noise_key, config)
    if moves:

        def move(image: Float[Array, 'H W'], mask: Float[Array, 'H W']) -> tuple[Array, Array]:
            points = warp.pixels(*image.shape)
            for _, operation in moves:
                points = operation(points)
            return warp.sample(image, mask, points)

        drawn = jnp.stack([move.drawn for move in moves]).any()
        image, mask = jax.lax.cond(drawn, move, lambda *same: same, image, mask)
    if config.window:
        size, on_lesion = config.window, config.window_on_lesion
        image, mask = random_window(window_key, image, mask, size=size, on_lesion=on_lesion)
    return image, mask


def choose(chance: Float[Array, ''], probability: float, count: int) -> Int[Array, '']:
    """One of `count` choices, each as likely, with `probability`; else `count`.

    Args:
      chance: uniform in [0, 1).
      probability: above 0, to 1.
      count: number of choices.
    """
    return jnp.minimum(jnp.floor(chance / probability * count), count).astype(jnp.int32)


def _draw(
    key: Key[Array, ''], config: ml_collections.ConfigDict
) -> tuple[dict[str, Float[Array, '']], dict[str, Float[Array, '...']]]:
    """All numbers of an example: chances in [0, 1), whether to apply what; draws, how much of it.

    They come from one call, because each call is a page of code to compile.
    """
    shapes = {
        'intensity': (), 'elastic': (3, 2), 'grid': (2, config.grid_steps), 'optical': (3,),
        'affine': (4,), 'crop': (3,),
    }  # fmt: skip
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    numbers = jax.random.uniform(key, (len(CHANCES) + sum(sizes),))
    chances, *rest = jnp.split(numbers, np.cumsum([len(CHANCES), *sizes[:-1]]))
    draws = {
        name: 2 * part.reshape(shape) - 1
        for (name, shape), part in zip(shapes.items(), rest, strict=True)
    }
    return dict(zip(CHANCES, chances, strict=True)), draws


def _intensity_changes(config: ml_collections.ConfigDict) -> tuple[Callable[..., Array], ...]:
    return (
        partial(intensity.random_contrast, limit=config.contrast),
        partial(intensity.random_gamma, limit=config.gamma),
        partial(intensity.random_brightness, limit=config.brightness),
    )


def _moves(
    chances: dict[str, Array],
    draws: dict[str, Array],
    noise_key: Key[Array, ''],
    config: ml_collections.ConfigDict,
) -> list[Move]:
    """The geometric operations from the last to the first."""
    moves = []
    if config.crop:
        drawn = chances['crop'] < config.crop
        amount = jnp.where(drawn, draws['crop'], 0.0)
        crop = partial(geometric.random_sized_crop, amount, share=config.crop_min)
        moves.append(Move(drawn, crop))
    if config.affine:
        drawn = chances['affine'] < config.affine
        amount = jnp.where(drawn, draws['affine'], 0.0)
        limits = {name: config[name] for name in ('shift', 'scale', 'rotate', 'border')}
        moves.append(Move(drawn, partial(geometric.shift_scale_rotate, amount, **limits)))
    if config.warp:
        distortions = _distortions(draws, noise_key, config)
        which = choose(chances['warp'], config.warp, len(distortions))
        branches = [*distortions, lambda same: same]
        moves.append(Move(which < len(distortions), partial(jax.lax.switch, which, branches)))
    return moves


def _distortions(
    draws: dict[str, Array], noise_key: Key[Array, ''], config: ml_collections.ConfigDict
) -> tuple[Callable[[Points], Points], ...]:
    def elastic(points: Points) -> Points:
        return geometric.elastic_transform(
            draws['elastic'], points, noise_key=noise_key,
            alpha=config.elastic_alpha, sigma=config.elastic_sigma, affine=config.elastic_affine,
        )  # fmt: skip

    lens = {'distort': config.optical_distort, 'shift': config.optical_shift}
    return (
        elastic,
        partial(geometric.grid_distortion, draws['grid'], distort=config.grid_distort),
        partial(geometric.optical_distortion, draws['optical'], **lens),
    )
