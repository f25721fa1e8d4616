"""ResNet34, layer for layer torchvision's (He et al. 2015, arXiv 1512.03385), as a Flax module.

Flax's own example pads with 'SAME', which shifts strided convolutions by a pixel against PyTorch;
converted ImageNet weights then see a slightly different network. Here every padding is explicit.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

MOMENTUM = 0.9  # of the old value in BatchNorm's running statistics
kaiming_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')  # torchvision's


def batch_norm(train: bool, axis_name: str | None, dtype: Any, name: str) -> nn.BatchNorm:
    """BatchNorm with torchvision's constants; statistics are always kept in float32.

    PyTorch's momentum 0.1 weighs the new value, Flax's 0.9 the old one: they are the same. PyTorch
    keeps n / (n - 1) times the variance it normalises by, Flax that variance: no step is affected.
    Flax's fast variance, E[x^2] - E[x]^2, cancels in float32 where the mean is large: in one step
    of random weights (tests/models/test_against_torch.py) the gradient was 9.3e-3 from the float64
    one with it, 2.7e-3 without, and PyTorch's 0.9e-3.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=MOMENTUM,
        epsilon=1e-5,
        dtype=dtype,
        axis_name=axis_name if train else None,
        use_fast_variance=False,
        name=name,
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected only where the shape changes."""

    filters: int
    stride: int = 1
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, 'B H W C'], *, train: bool) -> Float[Array, 'B h w F']:
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype, kernel_init=kaiming_normal)
        norm = partial(batch_norm, train, self.axis_name, self.dtype)
        strides = (self.stride, self.stride)

        y = conv(self.filters, (3, 3), strides=strides, padding=1, name='conv1')(x)
        y = nn.relu(norm(name='bn1')(y))
        y = conv(self.filters, (3, 3), padding=1, name='conv2')(y)
        y = norm(name='bn2')(y)
        if self.stride != 1 or x.shape[-1] != self.filters:
            x = conv(self.filters, (1, 1), strides=strides, padding=0, name='downsample_conv')(x)
            x = norm(name='downsample_bn')(x)
        return nn.relu(x + y)


class ResNet34(nn.Module):
    """The encoder: five feature maps, or class logits where a classifier is kept.

    Attributes:
      num_classes: None for feature maps, 1000 for ImageNet logits.
      width: channels of the stem and the first stage (64 is ResNet34; the demo has fewer).
      stage_sizes: blocks of each stage ((3, 4, 6, 3) is ResNet34).
      dtype: of the computation; parameters and batch statistics stay float32.
      axis_name: of the `pmap` over which batch statistics are synchronised, or None.
    """

    num_classes: int | None = None
    width: int = 64
    stage_sizes: Sequence[int] = (3, 4, 6, 3)
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, images: Float[Array, 'B H W C'], *, train: bool
    ) -> tuple[Float[Array, 'B _ _ _'], ...] | Float[Array, 'B {self.num_classes}']:
        """Encodes images.

        Args:
          images: normalised as `pneumojax.models.normalize` does.
          train: batch statistics come from the batch (and are updated) instead of being read.

        Returns:
          Feature maps of strides 2, 4, 8, 16, 32 with width x (1, 1, 2, 4, 8) channels, the size
          rounded up at each halving, in `dtype`; or float32 logits [B, num_classes].
        """
        x = jnp.asarray(images, self.dtype)
        x = nn.Conv(
            self.width, (7, 7), strides=(2, 2), padding=3, use_bias=False,
            dtype=self.dtype, kernel_init=kaiming_normal, name='conv1',
        )(x)  # fmt: skip
        x = nn.relu(batch_norm(train, self.axis_name, self.dtype, name='bn1')(x))
        features = [x]
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage, blocks in enumerate(self.stage_sizes):
            for block in range(blocks):
                x = BasicBlock(
                    filters=self.width * 2**stage,
                    stride=2 if stage > 0 and block == 0 else 1,
                    dtype=self.dtype,
                    axis_name=self.axis_name,
                    name=f'layer{stage + 1}_{block}',
                )(x, train=train)
            features.append(x)
        if self.num_classes is None:
            return tuple(features)
        x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return nn.Dense(self.num_classes, name='fc')(x)
