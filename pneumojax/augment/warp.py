"""Geometry of augmentation, deterministic: where each output pixel reads its input.

A transform is a function of `Points`: given the positions at which its output is wanted, it returns
the positions at which its input has to be read. Transforms that an example undergoes one after the
other are therefore chained from the last to the first, and the image is sampled once at the end:

    points = pixels(height, width)                # the output's pixels
    points = crop_points(points, ...)             # last transform of the sequence
    points = affine_points(points, matrix, ...)   # the one before it
    image, mask = sample(image, mask, points)

Policy: the image is sampled bilinearly, the mask by its nearest pixel so that it stays in {0, 1}.
Outside, the input continues as OpenCV's BORDER_REFLECT_101 (dcb|abcd|cba), or, where a transform is
asked for 'constant', as black with an empty mask. Matrices are OpenCV's: 2 x 3, acting on (x, y),
from input to output positions. Positions are in pixels, pixel (0, 0) has its centre at (0, 0).
Images have at least two pixels a side.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Scalar = float | Float[Array, '']


class Points(NamedTuple):
    """Where to read: positions in pixels and how much of what is read there counts."""

    y: Float[Array, 'H W']
    x: Float[Array, 'H W']
    weight: Float[Array, 'H W']  # in [0, 1]: 0 outside of a constant border


def pixels(height: int, width: int) -> Points:
    """The pixels themselves: the identity."""
    y = jax.lax.broadcasted_iota(jnp.float32, (height, width), 0)
    x = jax.lax.broadcasted_iota(jnp.float32, (height, width), 1)
    return Points(y, x, jnp.ones((height, width), jnp.float32))


def sample(
    image: Float[Array, 'H W C'], mask: Float[Array, 'H W 1'], points: Points
) -> tuple[Float[Array, 'h w C'], Float[Array, 'h w 1']]:
    """Reads image and mask at `points`.

    Args:
      image: float32 in [0, 1].
      mask: float32 in {0, 1}.
      points: positions of any value; those outside reflect. Its shape is the result's.

    Returns:
      (image, mask), same ranges. At whole positions the pixels come back bit for bit.
    """
    height, width, _ = image.shape
    y, x = reflect(points.y, height), reflect(points.x, width)
    weight = points.weight[..., None]
    # Rounding in the blend may leave [0, 1] by one unit in the last place.
    value = jnp.clip(_bilinear(image, y, x) * weight, 0.0, 1.0)
    nearest = _read(mask, jnp.floor(y + 0.5), jnp.floor(x + 0.5))
    return value, jnp.where(weight > 0.5, nearest, 0.0)


def flip_points(points: Points, *, axis: int) -> Points:
    """Mirrors left and right (axis 1) or top and bottom (axis 0).

    Args:
      points: positions in the flipped image.
      axis: 0 or 1.

    Returns:
      Positions in the image before it.
    """
    height, width = points.y.shape
    if axis == 0:
        return points._replace(y=height - 1 - points.y)
    return points._replace(x=width - 1 - points.x)


def affine_points(points: Points, matrix: Float[Array, '2 3'], *, border: str) -> Points:
    """The affine transform `matrix`, as cv2.warpAffine.

    Args:
      points: positions in the transformed image.
      matrix: takes an input position (x, y, 1) to its output position.
      border: 'reflect' or 'constant'.

    Returns:
      Positions in the image before it, all inside; a constant border lowers their weight.
    """
    a, b, c, d = matrix[0, 0], matrix[0, 1], matrix[1, 0], matrix[1, 1]
    x, y = points.x - matrix[0, 2], points.y - matrix[1, 2]
    determinant = a * d - b * c
    x, y = (d * x - b * y) / determinant, (a * y - c * x) / determinant
    height, width = points.y.shape
    if border == 'reflect':
        return points._replace(y=reflect(y, height), x=reflect(x, width))
    inside = Points(jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1), points.weight)
    # Bilinear sampling blends the outermost pixel into the black one beside it over one pixel.
    fade = jnp.maximum(1 - jnp.abs(y - inside.y), 0) * jnp.maximum(1 - jnp.abs(x - inside.x), 0)
    return inside._replace(weight=points.weight * fade)


def rotation_matrix(
    center: tuple[float, float], degrees: Scalar, scale: Scalar
) -> Float[Array, '2 3']:
    """Rotation about `center` and scaling, as cv2.getRotationMatrix2D.

    Args:
      center: (x, y) in pixels.
      degrees: positive turns counter-clockwise.
      scale: above 1 enlarges.
    """
    x, y = center
    cos, sin = (scale * f(jnp.deg2rad(degrees)) for f in (jnp.cos, jnp.sin))
    return jnp.array([[cos, sin, (1 - cos) * x - sin * y], [-sin, cos, sin * x + (1 - cos) * y]])


def jitter_matrix(jitter: Float[Array, '3 2'], height: int, width: int) -> Float[Array, '2 3']:
    """The affine transform that moves three corners of the central square by `jitter`.

    The square's half side is a third of the image's, as in albumentations.

    Args:
      jitter: displacements (x, y) in pixels of the corners bottom right, top right and top left.
      height: the image's, in pixels.
      width: the image's, in pixels.
    """
    center, half = jnp.array([width // 2, height // 2], jnp.float32), min(height, width) // 3
    # The displacement is affine too: constant + along_x u + along_y v with the corners at +-1.
    along_x, along_y = (jitter[1] - jitter[2]) / (2 * half), (jitter[0] - jitter[1]) / (2 * half)
    linear = jnp.eye(2) + jnp.stack([along_x, along_y], axis=1)
    offset = (jitter[0] + jitter[2]) / 2 - along_x * center[0] - along_y * center[1]
    return jnp.concatenate([linear, offset[:, None]], axis=1)


def crop_points(points: Points, top: Scalar, left: Scalar, share: Scalar) -> Points:
    """Cuts out a part and resizes it back to the whole size, as cv2.resize.

    Args:
      points: positions in the resized image.
      top: first row of the part, in pixels.
      left: first column of the part, in pixels.
      share: height and width of the part as a share of the image's, above 0 and up to 1.

    Returns:
      Positions in the image before it; the part's edge pixels continue outside of the part.
    """
    height, width = points.y.shape
    y, x = (points.y + 0.5) * share - 0.5, (points.x + 0.5) * share - 0.5
    return points._replace(
        y=top + jnp.clip(y, 0, height * share - 1), x=left + jnp.clip(x, 0, width * share - 1)
    )


def grid_points(points: Points, steps_y: Float[Array, ' n'], steps_x: Float[Array, ' m']) -> Points:
    """Grid distortion: the image is cut in equal cells and each reads a cell of another size.

    Args:
      points: positions in the distorted image, inside of it.
      steps_y: height of the cell read by each row of cells, 1 for its own height.
      steps_x: the same for columns.

    Returns:
      Positions in the image before it. They count from the upper left: cells that sum to less than
      the image leave its far edge unread, more than it reflect.
    """
    height, width = points.y.shape
    y, x = _stretch(points.y, steps_y, height), _stretch(points.x, steps_x, width)
    return points._replace(y=reflect(y, height), x=reflect(x, width))


def optical_points(points: Points, k: Scalar, dx: Scalar, dy: Scalar) -> Points:
    """Radial lens distortion, as cv2.initUndistortRectifyMap with k1 = k2 = k.

    Args:
      points: positions in the distorted image.
      k: radius r (in image widths) reads at r (1 + k r^2 + k r^4).
      dx: shift of the centre to the right, in pixels.
      dy: shift of the centre downwards, in pixels.

    Returns:
      Positions in the image before it.
    """
    height, width = points.y.shape
    y, x = points.y - (height / 2 + dy), points.x - (width / 2 + dx)
    r2 = (jnp.square(y) + jnp.square(x)) / width**2
    stretch = k * (r2 + r2 * r2)
    return points._replace(
        y=reflect(points.y + y * stretch, height), x=reflect(points.x + x * stretch, width)
    )


def elastic_points(points: Points, field: Float[Array, 'H W 2']) -> Points:
    """Moves every position by a displacement field.

    Args:
      points: positions in the displaced image, inside of it.
      field: displacements (y, x) in pixels.

    Returns:
      Positions in the image before it.
    """
    height, width = points.y.shape
    moved = _bilinear(field, points.y, points.x)
    return points._replace(
        y=reflect(points.y + moved[..., 0], height), x=reflect(points.x + moved[..., 1], width)
    )


def elastic_field(
    noise: Float[Array, 'H W 2'], alpha: float, sigma: float
) -> Float[Array, 'H W 2']:
    """Smooth displacements from noise (Simard, Steinkraus and Platt 2003).

    Args:
      noise: float32 in [-1, 1].
      alpha: factor of the smoothed noise, in pixels.
      sigma: standard deviation of the Gaussian, in pixels, known when the function is traced.

    Returns:
      In pixels: alpha * scipy.ndimage.gaussian_filter(noise, sigma) of each component.
    """
    # A banded matrix for each axis: two multiplications, which accelerators do best.
    rows, columns = (smoothing_matrix(n, sigma) for n in noise.shape[:2])
    return alpha * jnp.einsum('ih,hwc,jw->ijc', rows, noise, columns, precision='highest')


def smoothing_matrix(size: int, sigma: float) -> np.ndarray:
    """The matrix that smooths a line of `size` pixels with a Gaussian.

    Args:
      size: number of pixels.
      sigma: standard deviation in pixels, 0 for the identity.

    Returns:
      float32 [size, size], rows sum to 1. The kernel ends at 4 sigma and the line continues
      mirrored (dcba|abcd|dcba): both are scipy.ndimage.gaussian_filter's defaults.
    """
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * np.square(offsets / max(sigma, 1e-6)))
    kernel /= kernel.sum()
    rows = np.arange(size)[:, None]
    columns = (rows + offsets) % (2 * size)
    columns = np.minimum(columns, 2 * size - 1 - columns)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (rows, columns), kernel)
    return matrix.astype(np.float32)


def reflect(position: Float[Array, '*shape'], size: int) -> Float[Array, '*shape']:
    """Folds positions of any value into [0, size - 1] as BORDER_REFLECT_101.

    Args:
      position: in pixels; positions inside come back bit for bit.
      size: the number of pixels along this axis, at least 2.
    """
    period = 2 * (size - 1)
    position = jnp.abs(position)
    position = position - period * jnp.floor(position / period)
    return jnp.clip(jnp.minimum(position, period - position), 0, size - 1)


def _stretch(
    position: Float[Array, 'H W'], steps: Float[Array, ' n'], size: int
) -> Float[Array, 'H W']:
    # Sum over the cells of the part before `position` times the cell's step: linear in each cell.
    cell, result = size / len(steps), jnp.zeros_like(position)
    for i in range(len(steps)):
        result += steps[i] * jnp.clip(position - i * cell, 0, cell)
    return result


def _bilinear(
    array: Float[Array, 'H W C'], y: Float[Array, 'h w'], x: Float[Array, 'h w']
) -> Float[Array, 'h w C']:
    """Reads at positions inside the array."""
    height, width, _ = array.shape
    y0 = jnp.clip(jnp.floor(y), 0, height - 2)
    x0 = jnp.clip(jnp.floor(x), 0, width - 2)

    # A loop, although short: unrolled, XLA computes the positions anew for each of the corners.
    def add_corner(corner: Array, total: Array) -> Array:
        down, right = corner // 2, corner % 2
        share_y = jnp.where(down == 1, y - y0, 1 - (y - y0))
        share_x = jnp.where(right == 1, x - x0, 1 - (x - x0))
        return total + _read(array, y0 + down, x0 + right) * (share_y * share_x)[..., None]

    return jax.lax.fori_loop(0, 4, add_corner, jnp.zeros((*y.shape, array.shape[-1])))


def _read(
    array: Float[Array, 'H W C'], row: Float[Array, 'h w'], column: Float[Array, 'h w']
) -> Float[Array, 'h w C']:
    # One index into the flattened pixels: XLA gathers along one axis faster than along two.
    _height, width, channels = array.shape
    index = row.astype(jnp.int32) * width + column.astype(jnp.int32)
    return array.reshape(-1, channels).at[index].get(mode='clip')
