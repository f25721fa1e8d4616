"""Depthwise convolutions, one kernel for each channel, that a CPU computes in a few passes.

XLA's own take a CPU 10 to 30 times as long as a sum over the kernel's taps, each a product with a
shifted map: the sum is one loop over channels, which lie side by side. Everywhere else these
functions are the plain convolution.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def conv_general_dilated(
    lhs: Float[Array, 'B H W C'],
    rhs: Float[Array, 'K L I C'],
    window_strides: Sequence[int],
    padding: Any,
    **options: Any,
) -> Float[Array, 'B h w C']:
    """`lax.conv_general_dilated` for a depthwise `flax.linen.Conv`, by `sum_of_taps` on CPUs.

    Anything but one kernel for each channel, padding 'SAME', equal strides, no dilation and sizes
    that are numbers is the plain convolution on CPUs too.

    Args:
      lhs: [B, H, W, C].
      rhs: [k, k, 1, C], or any other kernel.
      window_strides, padding, **options: as in `lax.conv_general_dilated`.

    Returns:
      [B, h, w, C], of lhs's type.
    """

    def plain(x: Array, kernel: Array) -> Array:
        return lax.conv_general_dilated(x, kernel, window_strides, padding, **options)

    dilations = [options.get(name) or (1,) for name in ('lhs_dilation', 'rhs_dilation')]
    if (
        not all(isinstance(size, int) for size in lhs.shape)
        or padding != 'SAME'
        or not options.get('feature_group_count', 1) == lhs.shape[-1] == rhs.shape[-1]
        or rhs.shape[0] != rhs.shape[1]
        or len(set(window_strides)) > 1
        or any(set(dilation) != {1} for dilation in dilations)
    ):
        return plain(lhs, rhs)
    stride = window_strides[0]
    return lax.platform_dependent(
        lhs, rhs, cpu=lambda x, kernel: sum_of_taps(x, kernel, stride), default=plain
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def sum_of_taps(
    x: Float[Array, 'B H W C'], kernel: Float[Array, 'K K 1 C'], stride: int
) -> Float[Array, 'B h w C']:
    """The depthwise convolution with padding 'SAME', tap by tap.

    Args:
      x: a map, of any float type; float16 and bfloat16 are summed in float32.
      kernel: of any side.
      stride: of both axes.

    Returns:
      A map of x's type, its sizes divided by the stride and rounded up.
    """
    return _forward(x, kernel, stride)[0]


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    padded, size = _pad(x, kernel, stride)
    y: Any = 0
    for i, j in np.ndindex(kernel.shape[:2]):
        y = y + _tap(padded, i, j, size, stride) * _wide(kernel[i, j, 0])
    return y.astype(x.dtype), (x, kernel)


def _backward(stride: int, saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = saved
    padded, size = _pad(x, kernel, stride)
    side, taps = kernel.shape[0], list(np.ndindex(kernel.shape[:2]))
    # As the transpose of the above: every value goes back to where its taps were.
    ends = [n - (out - 1) * stride - 1 for n, out in zip(padded.shape[1:3], size, strict=True)]
    around = [(0, 0, 0), *((side - 1, end, stride - 1) for end in ends), (0, 0, 0)]
    spread = lax.pad(gradient, jnp.zeros((), gradient.dtype), around)
    before = [low for low, _ in _same(x, side, stride)]
    of_x: Any = 0
    for i, j in taps:
        start = (side - 1 - i + before[0], side - 1 - j + before[1])
        of_x = of_x + _tap(spread, *start, x.shape[1:3], 1) * _wide(kernel[i, j, 0])

    # Image by image into one map for each tap: XLA sums over leading axes number by number.
    def add(sums: list[Array], image: tuple[Array, Array]) -> tuple[list[Array], None]:
        x, gradient = (part[None] for part in image)
        products = [_tap(x, i, j, size, stride) * _wide(gradient) for i, j in taps]
        return [s + p[0] for s, p in zip(sums, products, strict=True)], None

    empty = [jnp.zeros(gradient.shape[1:], _wide(gradient).dtype) for _ in taps]
    sums, _ = lax.scan(add, empty, (padded, gradient))
    of_kernel = jnp.stack([jnp.sum(s, (0, 1)) for s in sums]).reshape(kernel.shape)
    return of_x.astype(x.dtype), of_kernel.astype(kernel.dtype)


sum_of_taps.defvjp(_forward, _backward)


def _same(x: Array, side: int, stride: int) -> list[tuple[int, int]]:
    """Padding 'SAME' of both axes: (before, after)."""
    return lax.padtype_to_pads(x.shape[1:3], (side, side), (stride, stride), 'SAME')


def _pad(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[int, ...]]:
    """The padded map, and the size of the convolution's result."""
    pads = ((0, 0), *_same(x, kernel.shape[0], stride), (0, 0))
    return jnp.pad(x, pads), tuple(-(-n // stride) for n in x.shape[1:3])


def _tap(x: Array, i: int, j: int, size: Sequence[int], stride: int) -> Array:
    """Every `stride`th pixel of a map from (i, j) on, as `_wide` gives it."""
    (height, width), (b, _, _, c) = size, x.shape
    end = (b, i + (height - 1) * stride + 1, j + (width - 1) * stride + 1, c)
    return _wide(lax.slice(x, (0, i, j, 0), end, (1, stride, stride, 1)))


def _wide(x: Array) -> Array:
    """In float32 at least."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
