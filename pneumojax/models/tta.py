"""Probabilities from a network, averaged over flips of the image."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float, UInt8

from pneumojax.models.normalize import normalize
from pneumojax.system.memoize import memoize


def flip_axes(flips: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Axes of [B, S, S, C] to reverse for each view: the image itself, then each flip.

    Args:
      flips: any of 'horizontal' and 'vertical'.
    """
    axis = {'horizontal': 2, 'vertical': 1}
    return ((), *((axis[flip],) for flip in flips))


def predict(
    apply: Callable[[Any], Any],
    images: Float[Array, 'B H W C'],
    flips: Sequence[str] = ('horizontal',),
) -> Float[Array, 'B H W 1']:
    """Mean of the probabilities of the image and its flips, each flipped back (A).

    Args:
      apply: images [B, S, S, C] -> logits [B, S, S, 1].
      images: [B, S, S, C], normalised.
      flips: as in `flip_axes`; empty for the image alone.

    Returns:
      Probabilities [B, S, S, 1], float32.
    """
    views = flip_axes(flips)
    stack = jnp.stack([jnp.flip(images, axes) for axes in views])
    probabilities = jax.nn.sigmoid(jax.vmap(apply)(stack))
    return jnp.mean(
        jnp.stack([jnp.flip(p, axes) for p, axes in zip(probabilities, views, strict=True)]), axis=0
    )


def describe(config: ml_collections.ConfigDict, flips: Sequence[str]) -> str:
    """What is compiled, for the user who waits: 'the prediction (512 px, flipped too)'."""
    return f'the prediction ({config.image_size} px{", flipped too" * bool(flips)})'


@memoize('model')
def make_predict(
    config: ml_collections.ConfigDict, model: nn.Module, flips: Sequence[str], exact: bool = False
) -> Callable[[Any, Any], Any]:
    """Builds `predict(variables, images) -> probabilities`, a pure function.

    Unless asked, accelerators do not multiply float32 as float32: a TPU rounds both factors to
    bfloat16, and an NVIDIA GPU since Ampere to TF32 (10 bits of mantissa).

    Args:
      config: `model.normalization` and `model.channels` are read.
      model: the network, a Flax module.
      flips: as in `flip_axes`.
      exact: multiply float32 as float32 on every device.

    Returns:
      From variables and uint8 [B, S, S] to float32 [B, S, S].
    """
    normalization, channels = config.model.normalization, config.model.channels

    def predict_uint8(variables: Any, images: UInt8[Array, 'B H W']) -> Float[Array, 'B H W']:
        inputs = images[..., None].astype(jnp.float32) / 255.0
        inputs = normalize(inputs, normalization, channels)
        with jax.default_matmul_precision('highest') if exact else contextlib.nullcontext():
            return predict(lambda x: model.apply(variables, x, train=False), inputs, flips)[..., 0]

    return predict_uint8
