"""BatchNorm (Ioffe and Szegedy 2015, arXiv 1502.03167) that reads its input as seldom as possible.

Flax's, with a stable variance and followed by a ReLU, reads a map three times forward and about
nine times backward, and its statistics take two collectives each way. Here it is two and four
times, and one collective each way; on accelerators these passes are most of a training step.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pneumojax.models.phases import on_tpu

MOMENTUM = 0.9  # of the old value in the running statistics
EPSILON = 1e-5
OVER = (0, 1, 2)  # the axes that statistics run over: images, rows, columns


class BatchNorm(nn.Module):
    """BatchNorm with torchvision's constants; statistics are always kept in float32.

    Its parameters and statistics have the names and shapes of `nn.BatchNorm`'s. PyTorch's momentum
    0.1 weighs the new value, Flax's 0.9 the old one: they are the same. PyTorch keeps n / (n - 1)
    times the variance it normalises by; here it is that variance: no step is affected.

    Attributes:
      train: use the batch's statistics, and update the running ones, instead of using those.
      axis_name: of the `pmap` over which the batch's statistics are those of all devices, or None.
      dtype: of the result.
      relu: a ReLU follows; here its gradient needs no pass of its own.
      phases: of `space_to_depth` in the channels, 4, or 1.
      narrow: there are few channels, at an even size: a TPU computes on phases.
      epsilon: added to the variance.
    """

    train: bool
    axis_name: str | None
    dtype: Any
    relu: bool = False
    phases: int = 1
    narrow: bool = False
    epsilon: float = EPSILON

    @nn.compact
    def __call__(self, x: Float[Array, 'B H W C']) -> Float[Array, 'B H W C']:
        features = (x.shape[-1] // self.phases,)
        mean = self.variable('batch_stats', 'mean', jnp.zeros, features, jnp.float32)
        var = self.variable('batch_stats', 'var', jnp.ones, features, jnp.float32)
        scale = self.param('scale', nn.initializers.ones, features)
        bias = self.param('bias', nn.initializers.zeros, features)
        axis_name = None if self.is_initializing() else self.axis_name

        def compute(x: Any, scale: Any, bias: Any, mean: Any, var: Any) -> tuple:
            if self.train:
                return normalize(x, scale, bias, axis_name, self.relu, self.epsilon)
            return (_affine(x, mean, var, self.epsilon, scale, bias, self.relu),)

        compute = on_tpu(compute) if self.narrow else compute
        y, *batch = compute(x, scale, bias, mean.value, var.value)
        if self.train and not self.is_initializing():
            for running, new in zip((mean, var), batch, strict=True):
                running.value = MOMENTUM * running.value + (1 - MOMENTUM) * new
        return y.astype(self.dtype)


def statistics(
    x: Float[Array, 'B H W C'], features: int, axis_name: str | None = None
) -> tuple[Float[Array, ' F'], Float[Array, ' F']]:
    """Mean and variance of each feature, in one pass after the mean of the first image.

    E[x^2] - E[x]^2 cancels where the mean is large against the deviation: in one step of random
    weights (tests/models/test_against_torch.py) the gradient was 9.3e-3 from the float64 one with
    it, 2.7e-3 with two passes. About the mean of one image of B, a share 1 / B of the data, the
    squared mean is at most B - 1 times the variance, so that little cancels. Parts (devices,
    phases) are joined by their means and variances (Chan et al. 1979), which cancels nothing.

    Args:
      x: of any float type; float16 and bfloat16 are summed in float32.
      features: F, of which C is a multiple: channels c, c + F, ... are parts of feature c.
      axis_name: of a `pmap` whose devices hold equal parts of the batch, or None.

    Returns:
      (mean, variance), the variance divided by n, in float32 (float64 where x is).
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    shift = jnp.mean(x[:1], OVER)
    centred = x - shift
    mean, square = jnp.mean(centred, OVER), jnp.mean(centred * centred, OVER)
    parts = jnp.stack([shift + mean, jnp.maximum(square - mean * mean, 0)]).reshape(2, -1, features)
    if axis_name is not None:
        parts = lax.all_gather(parts, axis_name, axis=1, tiled=True)
    means, variances = parts
    return jnp.mean(means, 0), jnp.mean(variances, 0) + jnp.var(means, 0)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalize(
    x: Float[Array, 'B H W C'],
    scale: Float[Array, ' F'],
    bias: Float[Array, ' F'],
    axis_name: str | None,
    relu: bool,
    epsilon: float = EPSILON,
) -> tuple[Float[Array, 'B H W C'], Float[Array, ' F'], Float[Array, ' F']]:
    """Normalises by the batch's own statistics, and gives these, which pass no gradient on.

    Args:
      x, axis_name: as in `statistics`; F is the size of scale.
      scale, bias: of each feature.
      relu: apply a ReLU to the result.
      epsilon: added to the variance.

    Returns:
      (y, mean, variance), y of x's shape and type.
    """
    return _forward(x, scale, bias, axis_name, relu, epsilon)[0]


def _forward(
    x: Any, scale: Any, bias: Any, axis_name: str | None, relu: bool, epsilon: float
) -> Any:
    mean, var = statistics(x, scale.size, axis_name)
    y = _affine(x, mean, var, epsilon, scale, bias, relu).astype(x.dtype)
    return (y, mean, var), (x, mean, var, scale, bias)


def _backward(
    axis_name: str | None, relu: bool, epsilon: float, saved: Any, cotangents: Any
) -> Any:
    """dx = scale / deviation (dy - E[dy] - z E[dy z]) with the normalised z; E as in forward."""
    x, mean, var, scale, bias = saved
    dy, z = cotangents[0].astype(mean.dtype), _affine(x, mean, var, epsilon)
    if relu:
        dy = jnp.where(_affine(x, mean, var, epsilon, scale, bias) > 0, dy, 0)
    sums = jnp.stack([jnp.sum(dy, OVER), jnp.sum(dy * z, OVER)]).reshape(2, -1, scale.size).sum(1)
    means = sums * scale.size / x.size
    if axis_name is not None:
        means = lax.pmean(means, axis_name)
    of_dy, of_dyz = (_tile(m, x) for m in means)
    dx = _tile(scale * lax.rsqrt(var + epsilon), x) * (dy - of_dy - z * of_dyz)
    dbias, dscale = sums.astype(scale.dtype)
    return dx.astype(x.dtype), dscale, dbias


normalize.defvjp(_forward, _backward)


def _affine(
    x: Any, mean: Any, var: Any, epsilon: float, scale: Any = 1.0, bias: Any = 0.0,
    relu: bool = False,
) -> Any:  # fmt: skip
    factor = lax.rsqrt(var + epsilon) * scale
    y = (x - _tile(mean, x)) * _tile(factor, x) + _tile(bias, x)
    return nn.relu(y) if relu else y


def _tile(values: Any, x: Any) -> Any:
    """One value per channel of x from one per feature."""
    return jnp.tile(values, x.shape[-1] // jnp.size(values)) if jnp.ndim(values) else values
