"""3 x 3 convolutions by Winograd's minimal filtering, forwards and backwards, on CPUs.

XLA's own 3 x 3 convolutions on a CPU take twice the time of a matrix product of as many operations.
F(m x m, 3 x 3) reads tiles of (m + 2)^2 input values, transforms them by sums, multiplies them by
the transformed kernel, channel by channel as one batched matrix product, and transforms the
products back to m^2 outputs. For m = 4 that is 2.25 products for each output instead of 9. The
gradients are the transposes of the same three steps.

Everywhere but on a CPU these functions are the plain convolution.

References:
  Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks" (arXiv 1509.09308).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

MIN_CHANNELS = 64  # with fewer, the transforms cost more than they save
# Of the plain convolution. With fewer, hundreds of steps save less time than compiling costs.
MIN_PRODUCTS = 100_000_000
_SMALL_MAP = 4  # pixels a side; up to here a tile of 4 x 4 outputs would be mostly padding
_DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')


class _Transforms(NamedTuple):
    """B^T, G and A^T of the paper, section 4.1 and 4.2: of the input, the kernel, the output."""

    input: np.ndarray
    kernel: np.ndarray
    output: np.ndarray


_F2 = _Transforms(
    input=np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
    kernel=np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2,
    output=np.array([[1, 1, 1, 0], [0, 1, -1, -1]]),
)
_F4 = _Transforms(
    input=np.array([
        [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
    ]),
    kernel=np.array([
        [6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24],
    ]) / 24,
    output=np.array([
        [1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1],
    ]),
)  # fmt: skip


def conv_general_dilated(
    lhs: Array, rhs: Array, window_strides: Sequence[int], padding: Any, **options: Any
) -> Array:
    """`lax.conv_general_dilated` for `flax.linen.Conv`, by Winograd where that is faster.

    That is on CPUs, for 3 x 3 kernels of stride 1 and padding 1 between at least `MIN_CHANNELS`
    channels, with at least `MIN_PRODUCTS` or on maps smaller than the kernel, where XLA's own takes
    many times as long. Float32 results differ by rounding (1e-5 of the largest value), and bfloat16
    is computed in float32, as XLA does on CPUs.

    Args:
      lhs: [B, H, W, C].
      rhs: [h, w, C, K].
      window_strides, padding, **options: as in `lax.conv_general_dilated`.
    """
    dilations = (options.get(name) or (1,) for name in ('lhs_dilation', 'rhs_dilation'))
    if (
        rhs.shape[:2] == (3, 3)
        and tuple(window_strides) == (1, 1)
        and not isinstance(padding, str)
        and [tuple(p) for p in padding] == [(1, 1), (1, 1)]
        and all(set(dilation) == {1} for dilation in dilations)
        and options.get('feature_group_count', 1) == 1
        and min(rhs.shape[2:]) >= MIN_CHANNELS
        and (lhs.size * 9 * rhs.shape[3] >= MIN_PRODUCTS or max(lhs.shape[1:3]) < 3)
    ):
        return convolve(lhs, rhs)
    return lax.conv_general_dilated(lhs, rhs, window_strides, padding, **options)


@jax.custom_vjp
def convolve(
    x: Float[Array, 'B H W C'], kernel: Float[Array, '3 3 C K']
) -> Float[Array, 'B H W K']:
    """The 3 x 3 convolution of stride 1 and padding 1."""
    return _forward(x, kernel)[0]


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    def winograd(x: Array, kernel: Array) -> tuple[Array, Array]:
        tiles = _input_tiles(_single(x), _transforms(x))
        return _product(tiles, kernel, x).astype(x.dtype), tiles

    def plain(x: Array, kernel: Array) -> tuple[Array, Array]:
        tiles = jax.eval_shape(winograd, x, kernel)[1]
        return _plain(x, kernel), jnp.zeros(tiles.shape, tiles.dtype)  # nothing reads them

    y, tiles = lax.platform_dependent(x, kernel, cpu=winograd, default=plain)
    return y, (x, kernel, tiles)


def _backward(saved: tuple[Array, Array, Array], gradient: Array) -> tuple[Array, Array]:
    def winograd(x: Array, kernel: Array, tiles: Array, gradient: Array) -> tuple[Array, Array]:
        transforms = _transforms(x)
        # The gradient of the input is the convolution with the kernel turned round.
        turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
        of_x = _product(_input_tiles(_single(gradient), transforms), turned, gradient)
        products = _output_tiles_transposed(_single(gradient), transforms)
        of_tiles = _batched(lax.optimization_barrier(jnp.swapaxes(tiles, 1, 2)), products)
        of_kernel = _kernel_transposed(of_tiles, transforms)
        return of_x.astype(x.dtype), of_kernel.astype(kernel.dtype)

    def plain(x: Array, kernel: Array, tiles: Array, gradient: Array) -> tuple[Array, Array]:
        return jax.vjp(_plain, x, kernel)[1](gradient)

    return lax.platform_dependent(*saved, gradient, cpu=winograd, default=plain)


convolve.defvjp(_forward, _backward)


def _plain(x: Array, kernel: Array) -> Array:
    padding = ((1, 1), (1, 1))
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=_DIMENSIONS)


def _single(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _transforms(x: Array) -> _Transforms:
    return _F2 if max(x.shape[1:3]) <= _SMALL_MAP else _F4


def _product(tiles: Array, kernel: Array, like: Array) -> Array:
    """The convolution of transformed tiles, cropped to the height and width of `like`."""
    transforms = _transforms(like)
    products = _batched(tiles, _transformed_kernel(_single(kernel), transforms))
    return _output(lax.optimization_barrier(products), like.shape[:3], transforms)


# Barriers keep XLA from fusing the sums into the operands of the products, which it would then
# compute anew for every block, and the first of two sums into the second.
def _batched(a: Array, b: Array) -> Array:
    """[t, n, k] x [t, k, m] -> [t, n, m]."""
    a, b = lax.optimization_barrier((a, b))
    return lax.dot_general(a, b, (((2,), (1,)), ((0,), (0,))))


def _sums(matrix: np.ndarray, parts: Sequence[Array]) -> list[Array]:
    """The matrix times a column of arrays, as sums: its entries are small whole numbers."""
    results = []
    for row in matrix.tolist():
        terms = [
            part if factor == 1 else -part if factor == -1 else factor * part
            for factor, part in zip(row, parts, strict=True)
            if factor
        ]
        results.append(sum(terms[1:], terms[0]))
    return results


def _counts(size: tuple[int, ...], step: int) -> list[int]:
    return [-(-n // step) for n in size]


def _input_tiles(x: Array, transforms: _Transforms) -> Array:
    """Overlapping tiles of the padded input, transformed: [B, H, W, C] -> [t t, tiles, C]."""
    step, size = transforms.output.shape
    batch, height, width, channels = x.shape
    rows, columns = _counts((height, width), step)
    low, high = 1, (1 + rows * step - height, 1 + columns * step - width)
    x = jnp.pad(x, ((0, 0), (low, high[0]), (low, high[1]), (0, 0)))

    def every(x: Array, first: int, count: int, axis: int) -> Array:
        return lax.slice_in_dim(x, first, first + step * (count - 1) + 1, step, axis)

    x = jnp.stack(_sums(transforms.input, [every(x, i, rows, 1) for i in range(size)]))
    x = lax.optimization_barrier(x)
    x = jnp.stack(_sums(transforms.input, [every(x, i, columns, 3) for i in range(size)]), 1)
    return x.reshape(size * size, batch * rows * columns, channels)


def _output(products: Array, shape: tuple[int, ...], transforms: _Transforms) -> Array:
    """The outputs of all tiles: [t t, tiles, K] -> [B, H, W, K]; `shape` is [B, H, W]."""
    step, size = transforms.output.shape
    batch, height, width = shape
    rows, columns = _counts((height, width), step)
    x = products.reshape(size, size, batch, rows, columns, -1)
    x = lax.optimization_barrier(jnp.stack(_sums(transforms.output, list(x))))
    x = jnp.stack(_sums(transforms.output, [x[:, i] for i in range(size)]), 1)
    x = x.transpose(2, 3, 0, 4, 1, 5).reshape(batch, rows * step, columns * step, -1)
    return x[:, :height, :width]


def _output_tiles_transposed(gradient: Array, transforms: _Transforms) -> Array:
    """The transpose of `_output`: [B, H, W, K] -> [t t, tiles, K]."""
    step, size = transforms.output.shape
    batch, height, width, channels = gradient.shape
    rows, columns = _counts((height, width), step)
    missing = ((0, 0), (0, rows * step - height), (0, columns * step - width), (0, 0))
    x = jnp.pad(gradient, missing).reshape(batch, rows, step, columns, step, channels)
    x = jnp.stack(_sums(transforms.output.T, [x[:, :, i] for i in range(step)]))
    x = lax.optimization_barrier(x)
    x = jnp.stack(_sums(transforms.output.T, [x[..., i, :] for i in range(step)]), 1)
    return x.reshape(size * size, batch * rows * columns, channels)


def _transformed_kernel(kernel: Array, transforms: _Transforms) -> Array:
    """[3, 3, C, K] -> [t t, C, K]."""
    both = jnp.asarray(np.kron(transforms.kernel, transforms.kernel), kernel.dtype)
    return (both @ kernel.reshape(9, -1)).reshape(-1, *kernel.shape[2:])


def _kernel_transposed(tiles: Array, transforms: _Transforms) -> Array:
    """The transpose of `_transformed_kernel`: [t t, C, K] -> [3, 3, C, K]."""
    both = jnp.asarray(np.kron(transforms.kernel, transforms.kernel), tiles.dtype)
    tiles = lax.optimization_barrier(tiles)
    return (both.T @ tiles.reshape(len(tiles), -1)).reshape(3, 3, *tiles.shape[1:])
