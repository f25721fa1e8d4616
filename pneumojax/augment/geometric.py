"""Random changes of geometry: `operation(draws, points, *, limits)` on positions, see `warp`.

Draws are uniform in [-1, 1); draws of 0 move nothing.

Definitions are albumentations 0.3's (2019), which the authors of 2ST-UNet used in their later
released code (Ayat-Abedalla/Ens4B-UNet). Lengths in pixels are those at `REFERENCE_SIZE` and grow
with the image, so that both stages see the same deformation. (The authors used the same pixels at
every size; to scale them is our choice.)
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from pneumojax.augment import warp
from pneumojax.augment.warp import Points

REFERENCE_SIZE = 512  # pixels: the size of the images in the authors' notebooks


def elastic_transform(
    draws: Float[Array, '3 2'],
    points: Points,
    *,
    noise_key: Key[Array, ''],
    alpha: float = 120.0,
    sigma: float = 6.0,
    affine: float = 3.6,
) -> Points:
    """Moves three corners a little, then every pixel by a smooth random field.

    Args:
      draws: displacements of the corners, (x, y) of each.
      points: positions in the result.
      noise_key: PRNG key of the field.
      alpha: factor of the smoothed noise, in pixels at `REFERENCE_SIZE`; the displacements'
        standard deviation is alpha / (6.14 sigma) of them.
      sigma: standard deviation of the smoothing, in pixels at `REFERENCE_SIZE`.
      affine: largest displacement of a corner along an axis, in pixels at `REFERENCE_SIZE`.

    Returns:
      Positions in the image before it.
    """
    height, width = points.y.shape
    unit = _unit(points)
    # Smoothed noise is as small as its sigma is large, hence the second factor for alpha.
    alpha, sigma = alpha * unit**2, sigma * unit
    shape = (2, *(warp.noise_size(size, sigma) for size in (height, width)))
    noise = jax.random.uniform(noise_key, shape, minval=-1.0)
    field = warp.elastic_field(noise, height, width, alpha=alpha, sigma=sigma)
    jitter = affine * unit * draws
    matrix = warp.jitter_matrix(jitter, height, width)
    # The corners move before the field does, so they are asked after it.
    return warp.affine_points(warp.elastic_points(points, field), matrix, border='reflect')


def grid_distortion(draws: Float[Array, '2 n'], points: Points, *, distort: float = 0.3) -> Points:
    """Stretches and squeezes the rows and columns of a grid of cells.

    Args:
      draws: sizes of the rows of cells, and of the columns; as many of each.
      points: positions in the result.
      distort: cells read 1 - distort to 1 + distort of their own size.

    Returns:
      Positions in the image before it.
    """
    rows, columns = 1 + distort * draws
    return warp.grid_points(points, steps_y=rows, steps_x=columns)


def optical_distortion(
    draws: Float[Array, '3'], points: Points, *, distort: float = 2.0, shift: float = 0.5
) -> Points:
    """Barrel or pincushion distortion of a lens.

    Args:
      draws: of k, and of the centre's shift to the right and down.
      points: positions in the result.
      distort: largest |k|, see `warp.optical_points`. Below -0.9 the corners fold over.
      shift: largest shift of the centre along an axis, in pixels at `REFERENCE_SIZE`.

    Returns:
      Positions in the image before it.
    """
    k, dx, dy = draws
    shift = shift * _unit(points)
    return warp.optical_points(points, k=distort * k, dx=shift * dx, dy=shift * dy)


def shift_scale_rotate(
    draws: Float[Array, '4'],
    points: Points,
    *,
    shift: float = 0.2,
    scale: float = 0.2,
    rotate: float = 20.0,
    border: str = 'constant',
) -> Points:
    """Shifts, scales and rotates about the centre.

    Args:
      draws: of the shifts to the right and down, the factor and the angle.
      points: positions in the result.
      shift: largest shift along an axis, as a share of the size.
      scale: the factor is in [1 - scale, 1 + scale].
      rotate: largest angle in degrees, both ways.
      border: what lies beyond the edge, 'constant' (black, no mask) or 'reflect'.

    Returns:
      Positions in the image before it.
    """
    height, width = points.y.shape
    dx, dy, zoom, turn = draws
    matrix = warp.rotation_matrix((width / 2, height / 2), rotate * turn, 1 + scale * zoom)
    matrix = matrix.at[:, 2].add(shift * jnp.stack([dx * width, dy * height]))
    return warp.affine_points(points, matrix, border=border)


def random_sized_crop(
    draws: Float[Array, '3'], points: Points, *, share: float = 412 / 512
) -> Points:
    """Cuts out a random part of random size and resizes it back.

    Args:
      draws: of the part's size and its place down and right; their absolute values count.
      points: positions in the result.
      share: smallest part, as a share of height and width; the largest is the whole.

    Returns:
      Positions in the image before it.
    """
    height, width = points.y.shape
    loss, down, right = jnp.abs(draws)
    part = 1 - (1 - share) * loss
    top, left = down * height * (1 - part), right * width * (1 - part)
    return warp.crop_points(points, top=top, left=left, share=part)


def _unit(points: Points) -> float:
    """This image's pixels per pixel at the reference size."""
    return min(points.y.shape) / REFERENCE_SIZE
