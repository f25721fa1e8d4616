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
from jaxtyping import Array, Float, Num

Scalar = float | Float[Array, '']
SIGN = np.uint32(1 << 31)  # of a float32


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
    image: Float[Array, 'H W'], mask: Float[Array, 'H W'], points: Points
) -> tuple[Float[Array, 'h w'], Float[Array, 'h w']]:
    """Reads image and mask at `points`.

    Args:
      image: float32 in [0, 1].
      mask: float32 in {0, 1}.
      points: positions of any value; those outside reflect. Its shape is the result's.

    Returns:
      (image, mask), same ranges. At whole positions the pixels come back bit for bit.
    """
    height, width = image.shape
    y, x = reflect(points.y, height), reflect(points.x, width)
    # The mask travels as the sign bit, which the image does not need. (Black may be -0.)
    bits = jax.lax.bitcast_convert_type(image, jnp.uint32) & ~SIGN
    words = bits | jnp.where(mask > 0.5, SIGN, 0)
    corners, down, right = _corners(words[None], y, x)
    values = jax.lax.bitcast_convert_type(corners & ~SIGN, jnp.float32)
    # Rounding in the blend may leave [0, 1] by one unit in the last place.
    value = jnp.clip(_blend(values, down, right) * points.weight, 0.0, 1.0)
    upper, lower = (jnp.where(right < 0.5, corners[..., i], corners[..., i + 1]) for i in (0, 2))
    nearest = jnp.where(down < 0.5, upper, lower) >= SIGN
    return value, jnp.where(nearest & (points.weight > 0.5), 1.0, 0.0)


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


def elastic_points(points: Points, field: Float[Array, '2 H W']) -> Points:
    """Moves every position by a displacement field.

    Args:
      points: positions in the displaced image, inside of it.
      field: displacements (y, x) in pixels.

    Returns:
      Positions in the image before it.
    """
    height, width = points.y.shape
    corners, *place = _corners(field, points.y, points.x)
    y, x = points.y + _blend(corners[..., :4], *place), points.x + _blend(corners[..., 4:], *place)
    return points._replace(y=reflect(y, height), x=reflect(x, width))


def elastic_field(
    noise: Float[Array, '2 h w'], height: int, width: int, alpha: float, sigma: float
) -> Float[Array, '2 H W']:
    """Smooth displacements from noise (Simard, Steinkraus and Platt 2003).

    Args:
      noise: float32 in [-1, 1], a number for each of `noise_size` places along each axis.
      height: the image's, in pixels.
      width: the image's, in pixels.
      alpha: factor of the smoothed noise, in pixels.
      sigma: standard deviation of the Gaussian, in pixels, known when the function is traced.

    Returns:
      In pixels: alpha * scipy.ndimage.gaussian_filter(noise, sigma) of each component; from less
      noise than a number a pixel, a field with the covariance of that.
    """
    # A matrix for each axis: two multiplications, which accelerators do best.
    rows = smoothing_matrix(height, noise.shape[1], sigma)
    columns = smoothing_matrix(width, noise.shape[2], sigma)
    return alpha * jnp.einsum('ih,chw,jw->cij', rows, noise, columns, precision='highest')


def noise_size(size: int, sigma: float) -> int:
    """How many numbers along an axis are enough for noise smoothed with `sigma`.

    Smoothed noise holds no detail: numbers up to sigma / 1.5 pixels apart give the same covariance
    as one number a pixel, to 2e-4 of the variance, for a small part of the work.

    Args:
      size: number of pixels.
      sigma: standard deviation in pixels.

    Returns:
      A divisor of `size`.
    """
    return next(n for n in range(1, size + 1) if size % n == 0 and size / n <= max(sigma / 1.5, 1))


def smoothing_matrix(size: int, count: int, sigma: float) -> np.ndarray:
    """The matrix that takes `count` numbers, evenly spaced, to a smooth line of `size` pixels.

    Args:
      size: number of pixels.
      count: a divisor of it.
      sigma: standard deviation of the Gaussian in pixels, 0 for the identity.

    Returns:
      float32 [size, count]. With a number a pixel it smooths as scipy.ndimage.gaussian_filter does
      by default: the kernel ends at 4 sigma and the line continues mirrored (dcba|abcd|dcba). Fewer
      independent numbers weigh more, each the root of their spacing, which keeps the covariance.
    """
    spacing, radius = size // count, int(4 * sigma + 0.5)
    # Each number stands in the middle of its pixels, and those beyond the ends are mirrored.
    beyond = radius // spacing + 1
    index = np.arange(-beyond, count + beyond)
    distance = np.arange(size)[:, None] - ((index + 0.5) * spacing - 0.5)
    scale = 2 * max(sigma, 1e-6) ** 2
    kernel = np.exp(-np.square(distance) / scale) * (np.abs(distance) <= radius)
    kernel /= np.exp(-np.square(np.arange(-radius, radius + 1)) / scale).sum()
    matrix, mirrored = np.zeros((size, count)), index % (2 * count)
    np.add.at(matrix.T, np.minimum(mirrored, 2 * count - 1 - mirrored), kernel.T)
    return (np.sqrt(spacing) * matrix).astype(np.float32)


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


def _corners(
    planes: Num[Array, 'N H W'], y: Float[Array, 'h w'], x: Float[Array, 'h w']
) -> tuple[Num[Array, 'h w M'], Float[Array, 'h w'], Float[Array, 'h w']]:
    """The pixels around positions inside the planes, and how far down and right these are.

    There are M = 4 N pixels: upper left, upper right, lower left and lower right of each plane.
    """
    _, height, width = planes.shape
    # Computed once on TPU and GPU: if to read and to blend anew, it could round to another pixel.
    y, x = jax.lax.optimization_barrier((y, x))
    y0 = jnp.clip(jnp.floor(y), 0, height - 2)
    x0 = jnp.clip(jnp.floor(x), 0, width - 2)
    # A TPU takes as long for a row of numbers as for one number, so all that is read at one place
    # stands in a row of a table. The padding, and what follows the last pixel of a line, is unread.
    flat = [jnp.pad(plane.reshape(-1), (0, width + 1)) for plane in planes]
    table = [p[k : k + height * width] for p in flat for k in (0, 1, width, width + 1)]
    index = y0.astype(jnp.int32) * width + x0.astype(jnp.int32)
    rows = jnp.stack(table, axis=1).at[index].get(mode='promise_in_bounds')
    return rows, y - y0, x - x0


def _blend(
    corners: Float[Array, 'h w 4'], down: Float[Array, 'h w'], right: Float[Array, 'h w']
) -> Float[Array, 'h w']:
    upper = corners[..., 0] * (1 - right) + corners[..., 1] * right
    lower = corners[..., 2] * (1 - right) + corners[..., 3] * right
    return upper * (1 - down) + lower * down
