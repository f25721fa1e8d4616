"""EfficientNet-Lite0 as a Flax module: an encoder for machines without an accelerator.

EfficientNet-B0 (Tan and Le 2019, arXiv 1905.11946) without squeeze-and-excitation and with ReLU6
instead of swish, as its authors published it for mobile processors. As an encoder it has 3 M
parameters, where ResNet34 has 21 M. It is padded as in TensorFlow, where its weights were trained.
"""

import itertools
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from pneumojax.models import depthwise
from pneumojax.models.batch_norm import BatchNorm

EPSILON = 1e-3  # of its BatchNorm
STEM = 32  # channels of the first convolution
FEATURES = (16, 24, 40, 112, 320)  # channels of the feature maps

kaiming_normal = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class Stage(NamedTuple):
    """Inverted residual blocks of one shape.

    Attributes:
      blocks: how many.
      filters: output channels of each.
      kernel: side of the depthwise convolution.
      stride: of the first block; the others have 1.
      expand: how many times as many channels the depthwise convolution has as the block's input.
    """

    blocks: int
    filters: int
    kernel: int
    stride: int
    expand: int


STAGES = (
    Stage(1, 16, 3, 1, 1), Stage(2, 24, 3, 2, 6), Stage(2, 40, 5, 2, 6), Stage(3, 80, 3, 2, 6),
    Stage(3, 112, 5, 1, 6), Stage(4, 192, 5, 2, 6), Stage(1, 320, 3, 1, 6),
)  # fmt: skip

# (stage, stride) of every block, and the feature map that it belongs to.
BLOCKS = [(stage, stage.stride if i == 0 else 1) for stage in STAGES for i in range(stage.blocks)]
LEVELS = list(itertools.accumulate(stride // 2 for _, stride in BLOCKS))


class InvertedResidual(nn.Module):
    """1x1 to more channels, a depthwise convolution, 1x1 to few; added to its input if it fits."""

    stage: Stage
    stride: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, 'B H W C'], *, train: bool) -> Float[Array, 'B h w F']:
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype, kernel_init=kaiming_normal)
        norm = partial(BatchNorm, train, self.axis_name, self.dtype, epsilon=EPSILON)
        inputs, kernel = x.shape[-1], self.stage.kernel
        y = x
        if self.stage.expand > 1:
            y = conv(inputs * self.stage.expand, (1, 1), name='expand_conv')(y)
            y = relu6(norm(relu=True, name='expand_bn')(y))
        y = conv(
            y.shape[-1], (kernel, kernel), strides=(self.stride, self.stride), padding='SAME',
            feature_group_count=y.shape[-1], conv_general_dilated=depthwise.conv_general_dilated,
            name='depthwise_conv',
        )(y)  # fmt: skip
        y = relu6(norm(relu=True, name='depthwise_bn')(y))
        y = norm(name='project_bn')(conv(self.stage.filters, (1, 1), name='project_conv')(y))
        return x + y if self.stride == 1 and inputs == self.stage.filters else y


class EfficientNetLite0(nn.Module):
    """The encoder: five feature maps.

    Attributes:
      dtype: of the computation; parameters and batch statistics stay float32.
      axis_name: of the `pmap` over which batch statistics are synchronised, or None.
      frozen_stages: as of `ResNet34`.
    """

    dtype: Any = jnp.float32
    axis_name: str | None = None
    frozen_stages: int = 0

    @nn.compact
    def __call__(
        self, images: Float[Array, 'B H W C'], *, train: bool
    ) -> tuple[Float[Array, 'B _ _ _'], ...]:
        """Encodes images.

        Args:
          images: normalised as `pneumojax.models.normalize` does.
          train: batch statistics come from the batch (and are updated) instead of being read.

        Returns:
          Feature maps of strides 2, 4, 8, 16, 32 with `FEATURES` channels, the size rounded up at
          each halving, in `dtype`.
        """
        stem = nn.Conv(
            STEM, (3, 3), strides=(2, 2), padding='SAME', use_bias=False, dtype=self.dtype,
            kernel_init=kaiming_normal, name='stem_conv',
        )  # fmt: skip
        norm = BatchNorm(
            train and not self.frozen_stages, self.axis_name, self.dtype, relu=True,
            epsilon=EPSILON, name='stem_bn',
        )  # fmt: skip
        x = relu6(norm(stem(jnp.asarray(images, self.dtype))))
        features = []
        for index, (stage, stride) in enumerate(BLOCKS):
            frozen = LEVELS[index] < self.frozen_stages
            block = InvertedResidual(
                stage, stride, self.dtype, self.axis_name, name=f'block{index}'
            )
            x = block(x, train=train and not frozen)
            x = lax.stop_gradient(x) if frozen else x
            if ends_map(index):
                features.append(x)
        return tuple(features)


def ends_map(index: int) -> bool:
    """Whether the output of a block is a feature map: the next one halves it, or there is none."""
    return index + 1 == len(BLOCKS) or LEVELS[index + 1] > LEVELS[index]


def stage_of(layer: str) -> int:
    """Which feature map a layer of the encoder belongs to, counted from 0."""
    return LEVELS[int(layer.removeprefix('block'))] if layer.startswith('block') else 0


def relu6(positive: Float[Array, 'B H W C']) -> Float[Array, 'B H W C']:
    """min(x, 6) of what a ReLU left."""
    return jnp.minimum(positive, jnp.asarray(6, positive.dtype))
