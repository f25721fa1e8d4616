"""The encoder's 3 x 3 max-pooling of stride 2, with a gradient that needs no scatter.

XLA's gradient of `nn.max_pool` selects and scatters: slow on CPUs, and on GPUs a sum of open order.
Here rows and columns are pooled one after the other, and each gradient goes to where its largest
value came from by comparisons alone.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def max_pool(x: Float[Array, 'B H W C']) -> Float[Array, 'B h w C']:
    """The largest of each 3 x 3 values, every second row and column, padded by one on each side.

    The same bits as `nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))`, and among equal values the
    gradient goes to the first, as there.

    Args:
      x: of any size; there is no NaN in it.

    Returns:
      Half the height and width, rounded up.
    """

    # Columns first: the gradient then reaches the first row of the largest values, and its first
    # column, as it does where XLA goes through a window row by row.
    def separable(x: Array) -> Array:
        return _pool(_pool(x, 2), 1)

    def windows(x: Array) -> Array:
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))

    # A TPU scatters faster than it interleaves rows and columns.
    return lax.platform_dependent(x, tpu=windows, default=separable)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _pool(x: Array, axis: int) -> Array:
    return _forward(x, axis)[0]


def _forward(x: Array, axis: int) -> tuple[Array, tuple[Array, Array]]:
    first, middle, last = _thirds(x, axis)
    y = jnp.maximum(jnp.maximum(first, middle), last)
    return y, (x, y)


def _backward(axis: int, saved: tuple[Array, Array], gradient: Array) -> tuple[Array]:
    x, y = saved
    first, middle, _ = _thirds(x, axis)
    zero = jnp.zeros_like(gradient)
    is_first = first == y
    is_middle = ~is_first & (middle == y)
    is_last = ~is_first & ~is_middle
    to_first, to_middle, to_last = (
        jnp.where(here, gradient, zero) for here in (is_first, is_middle, is_last)
    )
    # Window i reads 2i - 1, 2i and 2i + 1: even values belong to one window, odd ones to two.
    size = x.shape[axis]
    following = lax.slice_in_dim(to_first, 1, None, axis=axis)
    odd = to_last + _pad(following, axis, 0, 1)
    pairs = jnp.stack([to_middle, odd], axis + 1)
    shape = (*x.shape[:axis], 2 * y.shape[axis], *x.shape[axis + 1 :])
    return (lax.slice_in_dim(pairs.reshape(shape), 0, size, axis=axis),)


_pool.defvjp(_forward, _backward)


def _thirds(x: Array, axis: int) -> tuple[Array, ...]:
    """The values before, at and after every second position; -inf beyond the ends."""
    count = -(-x.shape[axis] // 2)
    x = _pad(x, axis, 1, 2 * count - x.shape[axis], -jnp.inf)
    return tuple(lax.slice_in_dim(x, i, i + 2 * count - 1, 2, axis) for i in range(3))


def _pad(x: Array, axis: int, low: int, high: int, value: float = 0.0) -> Array:
    widths = [(low, high, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
    return lax.pad(x, jnp.asarray(value, x.dtype), widths)
