"""ResNet34, layer for layer torchvision's (He et al. 2015, arXiv 1512.03385), as a Flax module.

Flax's own example pads with 'SAME', which shifts strided convolutions by a pixel against PyTorch;
converted ImageNet weights then see a slightly different network. Here every padding is explicit.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pneumojax.models import winograd
from pneumojax.models.batch_norm import BatchNorm
from pneumojax.models.max_pool import max_pool

kaiming_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')  # torchvision's


def stage_of(layer: str) -> int:
    """Which feature map a layer of the encoder belongs to, counted from 0."""
    return int(layer.removeprefix('layer').split('_')[0]) if layer.startswith('layer') else 0


def convolution(train: bool) -> partial[nn.Conv]:
    """`nn.Conv` without bias. In training, CPUs compute most 3 x 3 ones as `winograd` does.

    Only there: exported networks and predictions keep the plain convolutions.
    """
    function = winograd.conv_general_dilated if train else None  # None is `lax`'s
    return partial(nn.Conv, use_bias=False, conv_general_dilated=function)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected only where the shape changes."""

    filters: int
    stride: int = 1
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, 'B H W C'], *, train: bool) -> Float[Array, 'B h w F']:
        conv = partial(convolution(train), dtype=self.dtype, kernel_init=kaiming_normal)
        norm = partial(BatchNorm, train, self.axis_name, self.dtype)
        strides = (self.stride, self.stride)

        y = conv(self.filters, (3, 3), strides=strides, padding=1, name='conv1')(x)
        y = norm(relu=True, name='bn1')(y)
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
      frozen_stages: how many feature maps, from the first, keep their weights and batch statistics,
        also where `train` is True; no gradient is computed up to there.
    """

    num_classes: int | None = None
    width: int = 64
    stage_sizes: Sequence[int] = (3, 4, 6, 3)
    dtype: Any = jnp.float32
    axis_name: str | None = None
    frozen_stages: int = 0

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
        trained = train and not self.frozen_stages
        x = BatchNorm(trained, self.axis_name, self.dtype, relu=True, name='bn1')(x)
        x = lax.stop_gradient(x) if self.frozen_stages else x
        features = [x]
        x = max_pool(x)
        for stage, blocks in enumerate(self.stage_sizes):
            frozen = stage + 1 < self.frozen_stages
            for block in range(blocks):
                x = BasicBlock(
                    filters=self.width * 2**stage,
                    stride=2 if stage > 0 and block == 0 else 1,
                    dtype=self.dtype,
                    axis_name=self.axis_name,
                    name=f'layer{stage + 1}_{block}',
                )(x, train=train and not frozen)
            x = lax.stop_gradient(x) if frozen else x
            features.append(x)
        if self.num_classes is None:
            return tuple(features)
        x = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return nn.Dense(self.num_classes, name='fc')(x)
