"""Changes of grey value: contrast, gamma, brightness.

The `adjust_*` functions take what to do; the `random_*` ones take a number drawn from [-1, 1) and
call them. The definitions are albumentations 0.3's (2019), which the authors of 2ST-UNet used in
their later released code (Ayat-Abedalla/Ens4B-UNet). Images are float32 [H, W] in [0, 1],
results clipped to that range.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

Image = Float[Array, 'H W']
Scalar = float | Float[Array, '']


def random_contrast(draw: Scalar, image: Image, *, limit: float = 0.2) -> Image:
    """Contrast by a factor in [1 - limit, 1 + limit].

    Args:
      draw: in [-1, 1), its place in this interval.
      image: float32 in [0, 1].
      limit: largest change of the factor, 0 to 1.
    """
    return adjust_contrast(image, 1.0 + limit * draw)


def random_gamma(draw: Scalar, image: Image, *, limit: tuple[float, float] = (80, 120)) -> Image:
    """Gamma by an exponent in `limit`.

    Args:
      draw: in [-1, 1), its place in this interval.
      image: float32 in [0, 1].
      limit: lowest and highest exponent, in per cent.
    """
    low, high = limit
    return adjust_gamma(image, ((high + low) + (high - low) * draw) / 200)


def random_brightness(draw: Scalar, image: Image, *, limit: float = 0.2) -> Image:
    """Brightness by an offset in [-limit, limit].

    Args:
      draw: in [-1, 1), its place in this interval.
      image: float32 in [0, 1].
      limit: largest offset as a share of the full range, 0 to 1.
    """
    return adjust_brightness(image, limit * draw)


def adjust_contrast(image: Image, factor: Scalar) -> Image:
    """Multiplies the image by `factor`: black stays black, the mean is not kept."""
    return jnp.clip(image * factor, 0.0, 1.0)


def adjust_gamma(image: Image, exponent: Scalar) -> Image:
    """Raises the image to a power above 0: below 1 brightens, above 1 darkens."""
    # Not `power`: it would spend most of its code on signs that an image does not have.
    return jnp.clip(jnp.exp(exponent * jnp.log(image)), 0.0, 1.0)


def adjust_brightness(image: Image, offset: Scalar) -> Image:
    """Adds `offset`, a share of the full range, to every pixel."""
    return jnp.clip(image + offset, 0.0, 1.0)
