"""Augmentation on the device: pure functions of a key, compiled and vmapped with the training step.

The list is that of the authors' later released code (Ayat-Abedalla/Ens4B-UNet, albumentations 0.3),
in their order: flip, one of three changes of tone, one of three distortions, shift-scale-rotate,
sized crop. Every operation is `op(key, image, mask, *, limits with defaults)` on one example: image
float32 [H, W, C] in [0, 1], mask float32 [H, W, 1] in {0, 1}, and gives back the same. The policy
on range is stated in `tone`, that on sampling and borders in `warp`.

`augment` draws every operation of an example, but samples image and mask only once: positions are
carried through the geometric operations from the last to the first (see `warp`), which is as exact
and blurs once instead of four times. Under vmap nothing can be skipped, so everything is computed
and selected; an operation of probability 0 is left out when the function is traced.
"""

from functools import partial

import jax

from pneumojax.augment import warp
from pneumojax.augment.geometric import (
    draw_affine,
    draw_crop,
    draw_distortion,
    draw_flip,
    draw_vertical_flip,
    elastic_transform,
    grid_distortion,
    optical_distortion,
    perhaps,
    random_distortion,
    random_flip,
    random_sized_crop,
    shift_scale_rotate,
)
from pneumojax.augment.intensity import (
    random_brightness,
    random_contrast,
    random_gamma,
    random_tone,
)
from pneumojax.augment.window import random_window

OPERATIONS = (
    random_flip,
    random_contrast,
    random_gamma,
    random_brightness,
    random_tone,
    elastic_transform,
    grid_distortion,
    optical_distortion,
    random_distortion,
    shift_scale_rotate,
    random_sized_crop,
)


def augment_batch(key, examples, images, masks, config):
    """Augments a batch, one key per example.

    An example's key follows from `key` and its own index, not from its place in the batch or the
    device it is on: re-batched or resumed runs draw the same augmentations.

    Args:
      key: PRNG key of this step: `fold_in(key(seed), step)`.
      examples: int32 [B], index of each example in the data set.
      images: float32 [B, H, W, C] in [0, 1].
      masks: float32 [B, H, W, 1] in {0, 1}.
      config: see `augment`.

    Returns:
      (images, masks), as `augment` gives them.
    """

    def one(example, image, mask):
        return augment(jax.random.fold_in(key, example), image, mask, config)

    return jax.vmap(one)(examples, images, masks)


def augment(key, image, mask, config):
    """Augments one example.

    `config` has attribute access, for instance an ml_collections.ConfigDict. Its values are plain
    numbers, known when the function is traced; `pneumojax.config.check` knows their ranges (A: the
    authors' released code; L: albumentations' default, which that code leaves in place; I: our
    choice):

        flip=0.5,               # probability: left-right (A)
        vertical_flip=0.0,      # probability: upside down; no radiograph is (I)
        intensity=0.3,               # probability: one of contrast, gamma, brightness (A)
        contrast=0.2,           # factor from 1 - 0.2 to 1 + 0.2 (L)
        gamma=(80, 120),        # exponent in per cent (L)
        brightness=0.2,         # offset of at most 0.2 of the range (L)
        warp=0.3,               # probability: one of elastic, grid, optical (A)
        elastic_alpha=120.0,    # displacement before smoothing, pixels at 512 (A)
        elastic_sigma=6.0,      # its smoothing, pixels at 512 (A)
        elastic_affine=3.6,     # three corners move by up to this, pixels at 512 (A)
        grid_steps=5,           # cells a side (L)
        grid_distort=0.3,       # cells read 1 - 0.3 to 1 + 0.3 of their size (L)
        optical_distort=2.0,    # |k| of the lens at most (A)
        optical_shift=0.5,      # shift of its centre at most, pixels at 512 (A)
        affine=0.5,             # probability: shift-scale-rotate (A: one of four notebooks has 1)
        shift=0.2,              # at most this share of the size (A)
        scale=0.2,              # from 1 - 0.2 to 1 + 0.2 (A)
        rotate=20.0,            # degrees at most, both ways (A)
        border='constant',      # beyond the shifted edge: 'constant' (black, A) or 'reflect'
        crop=0.25,              # probability: sized crop (A: one of four notebooks has it on)
        crop_min=0.8046875,     # smallest share of the size: 412 of 512 (A)
        window=0,               # side of the window that is cut out at last, pixels; 0: none (I)
        window_on_lesion=0.0,   # probability that it lies over a pixel of the mask, if any (I)

    Args:
      key: PRNG key of this example at this step.
      image: float32 [H, W, C] in [0, 1].
      mask: float32 [H, W, 1] in {0, 1}.
      config: every key above.

    Returns:
      (image, mask), same ranges, of the window's size where there is one. Where nothing is drawn,
      bit for bit (a window of) the input.
    """
    elastic = {
        'alpha': config.elastic_alpha,
        'sigma': config.elastic_sigma,
        'affine': config.elastic_affine,
    }
    grid = {'steps': config.grid_steps, 'distort': config.grid_distort}
    optical = {'distort': config.optical_distort, 'shift': config.optical_shift}
    distortion = partial(draw_distortion, elastic=elastic, grid=grid, optical=optical)
    affine = partial(
        draw_affine,
        shift=config.shift,
        scale=config.scale,
        rotate=config.rotate,
        border=config.border,
    )
    crop = partial(draw_crop, share=config.crop_min)

    def change_tone(key, image):
        limits = {
            'contrast': config.contrast,
            'gamma': config.gamma,
            'brightness': config.brightness,
        }
        return random_tone(key, image, mask, **limits)[0]

    keys = jax.random.split(key, 6)
    image = perhaps(keys[0], config.intensity, change_tone, image)
    # From the last operation to the first: each asks the one before it where to read.
    points = pixels = warp.pixels(*image.shape[:2])
    points = perhaps(keys[1], config.crop, crop, points)
    points = perhaps(keys[2], config.affine, affine, points)
    points = perhaps(keys[3], config.warp, distortion, points)
    points = perhaps(keys[4], config.vertical_flip, draw_vertical_flip, points)
    points = perhaps(keys[5], config.flip, draw_flip, points)
    if points is not pixels:
        image, mask = warp.sample(image, mask, points)
    if config.window:
        key, share = jax.random.fold_in(key, len(keys)), config.window_on_lesion
        image, mask = random_window(key, image, mask, size=config.window, on_lesion=share)
    return image, mask
