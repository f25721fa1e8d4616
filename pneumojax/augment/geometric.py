"""Random changes of geometry: `operation(key, points, *, limits)` on positions, see `warp`.

Definitions are albumentations 0.3's (2019), which the authors of 2ST-UNet used in their later
released code (Ayat-Abedalla/Ens4B-UNet). Lengths in pixels are those at `REFERENCE_SIZE` and grow
with the image, so that both stages see the same deformation. (The authors used the same pixels at
every size; to scale them is our choice.)
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from pneumojax.augment import warp
from pneumojax.augment.warp import Points

REFERENCE_SIZE = 512  # pixels: the size of the images in the authors' notebooks


def elastic_transform(
    key: Key[Array, ''],
    points: Points,
    *,
    alpha: float = 120.0,
    sigma: float = 6.0,
    affine: float = 3.6,
) -> Points:
    """Moves three corners a little, then every pixel by a smooth random field.

    Args:
      key: PRNG key.
      points: positions in the result.
      alpha: factor of the smoothed noise, in pixels at `REFERENCE_SIZE`; the displacements'
        standard deviation is alpha / (6.14 sigma) of them.
      sigma: standard deviation of the smoothing, in pixels at `REFERENCE_SIZE`.
      affine: largest displacement of a corner along an axis, in pixels at `REFERENCE_SIZE`.

    Returns:
      Positions in the image before it.
    """
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


def grid_distortion(
    key: Key[Array, ''], points: Points, *, steps: int = 5, distort: float = 0.3
) -> Points:
    """Stretches and squeezes the rows and columns of a grid of cells.

    Args:
      key: PRNG key.
      points: positions in the result.
      steps: number of cells a side.
      distort: cells read 1 - distort to 1 + distort of their own size.

    Returns:
      Positions in the image before it.
    """
    sizes = 1 + distort * jax.random.uniform(key, (2, steps), minval=-1.0)
    return warp.grid_points(points, steps_y=sizes[0], steps_x=sizes[1])


def optical_distortion(
    key: Key[Array, ''], points: Points, *, distort: float = 2.0, shift: float = 0.5
) -> Points:
    """Barrel or pincushion distortion of a lens.

    Args:
      key: PRNG key.
      points: positions in the result.
      distort: largest |k|, see `warp.optical_points`. Below -0.9 the corners fold over.
      shift: largest shift of the centre along an axis, in pixels at `REFERENCE_SIZE`.

    Returns:
      Positions in the image before it.
    """
    k, dx, dy = jax.random.uniform(key, (3,), minval=-1.0)
    shift = shift * _unit(points)
    return warp.optical_points(points, k=distort * k, dx=shift * dx, dy=shift * dy)


def shift_scale_rotate(
    key: Key[Array, ''],
    points: Points,
    *,
    shift: float = 0.2,
    scale: float = 0.2,
    rotate: float = 20.0,
    border: str = 'constant',
) -> Points:
    """Shifts, scales and rotates about the centre.

    Args:
      key: PRNG key.
      points: positions in the result.
      shift: largest shift along an axis, as a share of the size.
      scale: the factor is drawn from [1 - scale, 1 + scale].
      rotate: largest angle in degrees, both ways.
      border: what lies beyond the edge, 'constant' (black, no mask) or 'reflect'.

    Returns:
      Positions in the image before it.
    """
    height, width = points.y.shape
    dx, dy, zoom, turn = jax.random.uniform(key, (4,), minval=-1.0)
    matrix = warp.rotation_matrix((width / 2, height / 2), rotate * turn, 1 + scale * zoom)
    matrix = matrix.at[:, 2].add(shift * jnp.stack([dx * width, dy * height]))
    return warp.affine_points(points, matrix, border=border)


def random_sized_crop(key: Key[Array, ''], points: Points, *, share: float = 412 / 512) -> Points:
    """Cuts out a random part of random size and resizes it back.

    Args:
      key: PRNG key.
      points: positions in the result.
      share: smallest part, as a share of height and width; the largest is the whole.

    Returns:
      Positions in the image before it.
    """
    height, width = points.y.shape
    size, down, right = jax.random.uniform(key, (3,))
    part = share + (1 - share) * size
    top, left = down * height * (1 - part), right * width * (1 - part)
    return warp.crop_points(points, top=top, left=left, share=part)


def _unit(points: Points) -> float:
    """This image's pixels per pixel at the reference size."""
    return min(points.y.shape) / REFERENCE_SIZE
