"""Maps of few channels as maps of half the size with four times the channels.

A TPU keeps channels on 128 lanes and reads 8 times too much where there are 16. Placed in channels,
the four pixels of each 2 x 2 square (the phases) fill them; a kernel of 3 x 3 becomes one of 3 x 3
on phases, with the same weights and zeros between. Sub-pixel convolutions are the same idea (Shi et
al. 2016, arXiv 1609.05158).
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# Row p of a square, offset d - 1: that pixel is row q of the square t - 1 further on.
_PLACE = np.zeros((3, 2, 2, 3), np.float32)  # [t, q, p, d]
for _p in range(2):
    for _d in range(3):
        _t, _q = divmod(_p + _d - 1, 2)
        _PLACE[_t + 1, _q, _p, _d] = 1


def space_to_depth(x: Float[Array, 'B H W C']) -> Float[Array, 'B h w D']:
    """[B, 2 h, 2 w, C] -> [B, h, w, 4 C]: each 2 x 2 square, row by row, channels the fastest."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // 2, w // 2, 4 * c)


def depth_to_space(x: Float[Array, 'B h w D']) -> Float[Array, 'B H W C']:
    """The inverse of `space_to_depth`."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, 2 * h, 2 * w, c // 4)


def upsampled_convolution(x: Any, kernel: Any, *args: Any, **options: Any) -> Any:
    """A convolution of 3 x 3, padding 1, after doubling by nearest neighbour, without doubling.

    Every output phase sees 2 x 2 pixels of x, so that taps on the same pixel are added up first.

    Args:
      x: [B, h, w, I].
      kernel: [3, 3, I, O].
      *args, **options: of `lax.conv_general_dilated`, whose place this takes in `nn.Conv`.

    Returns:
      [B, h, w, 4 O], phases in channels.
    """
    rows = _PLACE.sum(axis=1)
    merged = _einsum('tpd,use,deio->tuipso', rows, rows, kernel)
    return lax.conv_general_dilated(x, merged, *args, **options)


def convolution(x: Any, kernel: Any, *args: Any, **options: Any) -> Any:
    """A convolution of 3 x 3, padding 1; a TPU computes it on phases.

    Args:
      x: [B, H, W, I]; at odd or symbolic sizes the convolution is plain everywhere.
      kernel: [3, 3, I, O].
      *args, **options: as in `upsampled_convolution`.
    """

    def plain(x: Any, kernel: Any) -> Any:
        return lax.conv_general_dilated(x, kernel, *args, **options)

    def on_phases(x: Any, kernel: Any) -> Any:
        placed = _einsum('tqpd,urse,deio->tuqripso', _PLACE, _PLACE, kernel)
        return depth_to_space(plain(space_to_depth(x), placed))

    if not are_even(x.shape[1:3]):
        return plain(x, kernel)
    return lax.platform_dependent(x, kernel, tpu=on_phases, default=plain)


def on_tpu(function: Callable[..., tuple]) -> Callable[..., tuple]:
    """`function` of a map [B, H, W, C] of even size, which a TPU gives phases and takes them back.

    It returns a map of the size it gets, and anything else, in a tuple.
    """

    def on_phases(x: Any, *rest: Any) -> tuple:
        y, *others = function(space_to_depth(x), *rest)
        return depth_to_space(y), *others

    return lambda *args: lax.platform_dependent(*args, tpu=on_phases, default=function)


def are_even(sizes: Any) -> bool:
    """Whether all sizes are even numbers; symbols, in an export for any size, are not numbers."""
    return all(isinstance(n, int) and n % 2 == 0 for n in sizes)


def _einsum(subscripts: str, rows: Any, columns: Any, kernel: Any) -> Any:
    """[t, u, ...] of a kernel as [3, 3, inputs, outputs], in the kernel's own precision."""
    out = jnp.einsum(
        subscripts, rows.astype(kernel.dtype), columns.astype(kernel.dtype), kernel,
        precision=lax.Precision.HIGHEST,
    )  # fmt: skip
    inputs = kernel.shape[2] * (4 if 'q' in subscripts else 1)
    return out.reshape(3, 3, inputs, -1)
