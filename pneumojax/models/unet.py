"""U-Net (Ronneberger et al. 2015, arXiv 1505.04597) on a ResNet34 or EfficientNet-Lite0 encoder.

The decoder has the shape that segmentation_models_pytorch made common, so its checkpoints convert.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from pneumojax.models import efficientnet, phases, resnet
from pneumojax.models.batch_norm import BatchNorm
from pneumojax.models.efficientnet import EfficientNetLite0
from pneumojax.models.resnet import ResNet34, convolution

DimSize = Any  # an int; a symbol while exporting for any size

ENCODER = 'encoder'  # its name in variables and checkpoints
# Its name in checkpoints, which older ones have too. Flax draws initial weights by this name.
CLASSIFICATION_HEAD = 'image_head'

kaiming_uniform = nn.initializers.variance_scaling(2.0, 'fan_in', 'uniform')
xavier_uniform = nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform')


def decoder_filters(width: int) -> list[int]:
    """Channels of the decoder's blocks, from the deepest; 256, 128, 64, 32, 16 at width 64."""
    return [max(1, int(width * share)) for share in (4, 2, 1, 0.5, 0.25)]


def upsample(
    x: Float[Array, 'B h w C'], height: DimSize, width: DimSize
) -> Float[Array, 'B H W C']:
    """Doubles [B, h, w, C] by nearest neighbour and crops it to height x width.

    A convolution of stride 2 with padding 1 centres its output i on its input 2i, so cropping the
    far edge keeps maps of odd size aligned with the skip they are joined to.
    """
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)[:, :height, :width]


class DecoderBlock(nn.Module):
    """Upsample, join the skip, then convolution-BatchNorm-ReLU twice."""

    filters: int
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, 'B h w C'],
        skip: Float[Array, 'B H W S'] | None,
        size: tuple[DimSize, ...],
        *,
        train: bool,
    ) -> Float[Array, 'B H W {self.filters}']:
        conv = partial(
            convolution(train), self.filters, (3, 3), padding=1,
            dtype=self.dtype, kernel_init=kaiming_uniform,
        )  # fmt: skip
        norm = partial(BatchNorm, train, self.axis_name, self.dtype, relu=True)
        if skip is None and phases.are_even(size):  # the last block: full size, few channels
            x = conv(name='conv1', conv_general_dilated=phases.upsampled_convolution)(x)
            x = phases.depth_to_space(norm(phases=4, name='bn1')(x))
            x = conv(name='conv2', conv_general_dilated=phases.convolution)(x)
            return norm(narrow=True, name='bn2')(x)
        x = upsample(x, *size)
        if skip is not None:
            x = jnp.concatenate([x, skip], axis=-1)
        x = norm(name='bn1')(conv(name='conv1')(x))
        return norm(name='bn2')(conv(name='conv2')(x))


class Decoder(nn.Module):
    """Five blocks, from the deepest feature map back to the input's size."""

    filters: Sequence[int]
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, features: Sequence[Float[Array, 'B _ _ _']], size: tuple[DimSize, ...], *, train: bool
    ) -> Float[Array, 'B H W _']:
        x, *skips = reversed(features)
        for i, filters in enumerate(self.filters):
            skip = skips[i] if i < len(skips) else None
            x = DecoderBlock(filters, self.dtype, self.axis_name, name=f'block{i}')(
                x, skip, skip.shape[1:3] if skip is not None else size, train=train
            )
        return x


def gate(
    logits: Float[Array, 'B H W 1'], image_logits: Float[Array, ' B']
) -> Float[Array, 'B H W 1']:
    """Logits of the product of two probabilities: a lesion in the image at all, and at this pixel.

    With p = 1 / (1 + e^-x) and q = 1 / (1 + e^-y), pq / (1 - pq) = 1 / (e^-x + e^-y + e^-(x + y)).

    Args:
      logits: of the pixels.
      image_logits: of the classification head.
    """
    x, y = -logits, -image_logits[:, None, None, None]
    return -jnp.logaddexp(jnp.logaddexp(x, y), x + y)


class UNet(nn.Module):
    """ResNet34-UNet: 24,436,369 parameters with the defaults and three input channels.

    Attributes:
      width: channels of a ResNet's first stage; the decoder has width x (4, 2, 1, 1/2, 1/4).
      stage_sizes: blocks of each stage of a ResNet.
      dtype: of the computation. Parameters, batch statistics and logits are float32 in any case.
      axis_name: of the `pmap` over which batch statistics are synchronised, or None.
      classification_head: one more output, whether the image shows any lesion: a dense layer on the
        mean of the deepest feature map, as amirassov's (W) and smp's are.
      gated: with that head, logits are those of `gate` where `train` is False.
      encoder: 'resnet34' or 'efficientnet_lite0'.
      frozen_stages: how many of the encoder's feature maps, from the first, keep their weights and
        batch statistics, also where `train` is True.
    """

    width: int = 64
    stage_sizes: Sequence[int] = (3, 4, 6, 3)
    dtype: Any = jnp.float32
    axis_name: str | None = None
    classification_head: bool = False
    gated: bool = False
    encoder: str = 'resnet34'
    frozen_stages: int = 0

    @nn.compact
    def __call__(
        self, images: Float[Array, 'B H W C'], *, train: bool, parts: bool = False
    ) -> Float[Array, 'B H W 1'] | tuple[Float[Array, 'B H W 1'], Float[Array, ' B'] | None]:
        """Segments images.

        Args:
          images: of any size from 1 x 1 on, normalised; C is 1 or 3.
          train: batch statistics come from the batch (and are updated) instead of being read.
          parts: return the outputs of both heads as they are.

        Returns:
          Logits [B, H, W, 1], float32 (float64 where the parameters are). With `parts`, the pixels'
          logits, never gated, and the image's [B] (None without that head).
        """
        shared: Any = {'dtype': self.dtype, 'axis_name': self.axis_name}
        frozen: Any = {'frozen_stages': self.frozen_stages, 'name': ENCODER}
        if self.encoder == 'resnet34':
            encoder = ResNet34(width=self.width, stage_sizes=self.stage_sizes, **shared, **frozen)
        else:
            encoder = EfficientNetLite0(**shared, **frozen)
        features: Any = encoder(images, train=train)
        x = Decoder(decoder_filters(self.width), name='decoder', **shared)(
            features, images.shape[1:3], train=train
        )
        logits_dtype = jnp.promote_types(self.dtype, jnp.float32)
        logits = nn.Conv(
            1, (3, 3), padding=1, dtype=logits_dtype, kernel_init=xavier_uniform, name='head',
            conv_general_dilated=phases.convolution,
        )(x.astype(logits_dtype))  # fmt: skip
        if not self.classification_head:
            return (logits, None) if parts else logits
        mean = jnp.mean(features[-1].astype(logits_dtype), axis=(1, 2))
        dense = nn.Dense(1, dtype=logits_dtype, name=CLASSIFICATION_HEAD)
        image_logits = dense(mean)[:, 0]
        if parts:
            return logits, image_logits
        return gate(logits, image_logits) if self.gated and not train else logits


def frozen_layers(layers: Iterable[str], encoder: str, frozen_stages: int) -> list[str]:
    """Those of an encoder's layers whose variables training leaves as they are."""
    stage_of = {'resnet34': resnet.stage_of, 'efficientnet_lite0': efficientnet.stage_of}[encoder]
    return [layer for layer in layers if stage_of(layer) < frozen_stages]
