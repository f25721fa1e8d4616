"""Random changes of geometry: the operations, and the draws that the whole pipeline shares.

The operations take `(key, image, mask, *, limits)` and sample once, by the policy stated in `warp`.
The `draw_*` functions below do the same to positions instead of pixels, so that several can be
chained before anything is sampled. Definitions follow albumentations 0.3 (2019), which the authors
of 2ST-UNet used in their later released code (Ayat-Abedalla/Ens4B-UNet).

Sizes in pixels are those at `REFERENCE_SIZE` and grow with the image, so that both stages see the
same deformation: the authors used the same pixels at every size, to scale them is our choice.
"""

from functools import partial

import jax
import jax.numpy as jnp

from pneumojax.augment import warp

REFERENCE_SIZE = 512  # pixels: the size of the images in the authors' notebooks


def random_flip(key, image, mask, *, probability=0.5, axis=1):
    """Mirrors the example with `probability`.

    Args:
      key: PRNG key.
      image: float32 [H, W, C] in [0, 1].
      mask: float32 [H, W, 1] in {0, 1}.
      probability: 0 to 1.
      axis: 1 for left-right, 0 for upside down.

    Returns:
      (image, mask), same shapes.
    """
    points = warp.pixels(*image.shape[:2])
    flip = draw_vertical_flip if axis == 0 else draw_flip
    return warp.sample(image, mask, perhaps(key, probability, flip, points))


def random_distortion(
    key,
    image,
    mask,
    *,
    elastic_alpha=120.0,
    elastic_sigma=6.0,
    elastic_affine=3.6,
    grid_steps=5,
    grid_distort=0.3,
    optical_distort=2.0,
    optical_shift=0.5,
):
    """One of elastic transform, grid distortion and optical distortion, each as likely.

    Args:
      key: PRNG key.
      image: float32 [H, W, C] in [0, 1].
      mask: float32 [H, W, 1] in {0, 1}.
      elastic_alpha: see `elastic_transform`.
      elastic_sigma: see `elastic_transform`.
      elastic_affine: see `elastic_transform`.
      grid_steps: see `grid_distortion`.
      grid_distort: see `grid_distortion`.
      optical_distort: see `optical_distortion`.
      optical_shift: see `optical_distortion`.

    Returns:
      (image, mask), same shapes.
    """
    points = draw_distortion(
        key,
        warp.pixels(*image.shape[:2]),
        elastic={'alpha': elastic_alpha, 'sigma': elastic_sigma, 'affine': elastic_affine},
        grid={'steps': grid_steps, 'distort': grid_distort},
        optical={'distort': optical_distort, 'shift': optical_shift},
    )
    return warp.sample(image, mask, points)


def elastic_transform(key, image, mask, *, alpha=120.0, sigma=6.0, affine=3.6):
    """Moves three corners a little, then every pixel by a smooth random field.

    Args:
      key: PRNG key.
      image: float32 [H, W, C] in [0, 1].
      mask: float32 [H, W, 1] in {0, 1}.
      alpha: factor of the smoothed noise, in pixels at `REFERENCE_SIZE`; the displacements'
        standard deviation is alpha / (6.14 sigma) of them.
      sigma: standard deviation of the smoothing, in pixels at `REFERENCE_SIZE`.
      affine: largest displacement of a corner along an axis, in pixels at `REFERENCE_SIZE`.

    Returns:
      (image, mask), same shapes.
    """
    points = draw_elastic(
        key, warp.pixels(*image.shape[:2]), alpha=alpha, sigma=sigma, affine=affine
    )
    return warp.sample(image, mask, points)


def grid_distortion(key, image, mask, *, steps=5, distort=0.3):
    """Stretches and squeezes the rows and columns of a grid of cells.

    Args:
      key: PRNG key.
      image: float32 [H, W, C] in [0, 1].
      mask: float32 [H, W, 1] in {0, 1}.
      steps: number of cells a side.
      distort: cells read 1 - distort to 1 + distort of their own size.

    Returns:
      (image, mask), same shapes.
    """
    points = draw_grid(key, warp.pixels(*image.shape[:2]), steps=steps, distort=distort)
    return warp.sample(image, mask, points)


def optical_distortion(key, image, mask, *, distort=2.0, shift=0.5):
    """Barrel or pincushion distortion of a lens.

    Args:
      key: PRNG key.
      image: float32 [H, W, C] in [0, 1].
      mask: float32 [H, W, 1] in {0, 1}.
      distort: largest |k|, see `warp.optical_points`. Below -0.9 the corners fold over.
      shift: largest shift of the centre along an axis, in pixels at `REFERENCE_SIZE`.

    Returns:
      (image, mask), same shapes.
    """
    points = draw_optical(key, warp.pixels(*image.shape[:2]), distort=distort, shift=shift)
    return warp.sample(image, mask, points)


def shift_scale_rotate(
    key, image, mask, *, shift=0.2, scale=0.2, rotate=20.0, border='constant'
):  # fmt: skip
    """Shifts, scales and rotates about the centre.

    Args:
      key: PRNG key.
      image: float32 [H, W, C] in [0, 1].
      mask: float32 [H, W, 1] in {0, 1}.
      shift: largest shift along an axis, as a share of the size.
      scale: the factor is drawn from [1 - scale, 1 + scale].
      rotate: largest angle in degrees, both ways.
      border: what lies beyond the edge, 'constant' (black, no mask) or 'reflect'.

    Returns:
      (image, mask), same shapes.
    """
    points = warp.pixels(*image.shape[:2])
    points = draw_affine(key, points, shift=shift, scale=scale, rotate=rotate, border=border)
    return warp.sample(image, mask, points)


def random_sized_crop(key, image, mask, *, share=412 / 512):
    """Cuts out a random part of random size and resizes it back.

    Args:
      key: PRNG key.
      image: float32 [H, W, C] in [0, 1].
      mask: float32 [H, W, 1] in {0, 1}.
      share: smallest part, as a share of height and width; the largest is the whole.

    Returns:
      (image, mask), same shapes.
    """
    return warp.sample(image, mask, draw_crop(key, warp.pixels(*image.shape[:2]), share=share))


def perhaps(key, probability, change, value):
    """`change(key, value)` with `probability`, else `value`: selected, as vmap would do anyway.

    Args:
      key: PRNG key.
      probability: 0 to 1, known when the function is traced; for 0 nothing is computed.
      change: function of (key, value) whose result has the shapes of `value`.
      value: any tree of arrays.

    Returns:
      A tree like `value`.
    """
    if not probability:
        return value
    drawn, key = jax.random.split(key)
    applies = jax.random.uniform(drawn) < probability
    return jax.tree.map(partial(jnp.where, applies), change(key, value), value)


def draw_flip(key, points):
    """Mirrors left and right; nothing is left to chance."""
    del key
    return warp.flip_points(points, axis=1)


def draw_vertical_flip(key, points):
    """Mirrors top and bottom; nothing is left to chance."""
    del key
    return warp.flip_points(points, axis=0)


def draw_distortion(key, points, *, elastic, grid, optical):
    """One of three: keyword arguments of `draw_elastic`, `draw_grid` and `draw_optical`."""
    which, key = jax.random.split(key)
    choices = (
        draw_elastic(key, points, **elastic),
        draw_grid(key, points, **grid),
        draw_optical(key, points, **optical),
    )
    which = jax.random.randint(which, (), 0, len(choices))
    return jax.tree.map(partial(jax.lax.select_n, which), *choices)


def draw_elastic(key, points, *, alpha, sigma, affine):
    """`elastic_transform` of positions."""
    height, width = points.y.shape
    noise_key, jitter_key = jax.random.split(key)
    unit = _unit(points)
    noise = jax.random.uniform(noise_key, (height, width, 2), minval=-1.0)
    # Smoothed noise is as small as its sigma is large, hence the second factor for alpha.
    field = warp.elastic_field(noise, alpha=alpha * unit**2, sigma=sigma * unit)
    jitter = affine * unit * jax.random.uniform(jitter_key, (3, 2), minval=-1.0)
    matrix = warp.jitter_matrix(jitter, height, width)
    # The corners move before the field does, so they are asked after it.
    return warp.affine_points(warp.elastic_points(points, field), matrix, border='reflect')


def draw_grid(key, points, *, steps, distort):
    """`grid_distortion` of positions."""
    steps = 1 + distort * jax.random.uniform(key, (2, steps), minval=-1.0)
    return warp.grid_points(points, steps_y=steps[0], steps_x=steps[1])


def draw_optical(key, points, *, distort, shift):
    """`optical_distortion` of positions."""
    k, dx, dy = jax.random.uniform(key, (3,), minval=-1.0)
    shift = shift * _unit(points)
    return warp.optical_points(points, k=distort * k, dx=shift * dx, dy=shift * dy)


def draw_affine(key, points, *, shift, scale, rotate, border):
    """`shift_scale_rotate` of positions."""
    height, width = points.y.shape
    dx, dy, zoom, turn = jax.random.uniform(key, (4,), minval=-1.0)
    matrix = warp.rotation_matrix((width / 2, height / 2), rotate * turn, 1 + scale * zoom)
    matrix = matrix.at[:, 2].add(shift * jnp.stack([dx * width, dy * height]))
    return warp.affine_points(points, matrix, border=border)


def draw_crop(key, points, *, share):
    """`random_sized_crop` of positions."""
    height, width = points.y.shape
    size, down, right = jax.random.uniform(key, (3,))
    share = share + (1 - share) * size
    top, left = down * height * (1 - share), right * width * (1 - share)
    return warp.crop_points(points, top=top, left=left, share=share)


def _unit(points):
    """This image's pixels per pixel at the reference size."""
    return min(points.y.shape) / REFERENCE_SIZE
