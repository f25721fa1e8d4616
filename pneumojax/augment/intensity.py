"""Changes of grey value: contrast, gamma, brightness.

The `adjust_*` functions are deterministic; the `random_*` ones draw one number and call them. The
definitions are albumentations 0.3's (2019), which the authors of 2ST-UNet used in their later
released code (Ayat-Abedalla/Ens4B-UNet). Images are float32 [H, W, C] in [0, 1], results clipped to
that range.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Image = Float[Array, 'H W C']
Scalar = float | Float[Array, '']


def random_contrast(key: Key[Array, ''], image: Image, *, limit: float = 0.2) -> Image:
    """Contrast by a factor drawn from [1 - limit, 1 + limit].

    Args:
      key: PRNG key.
      image: float32 in [0, 1].
      limit: largest change of the factor, 0 to 1.
    """
    return adjust_contrast(image, 1.0 + limit * _symmetric(key))


def random_gamma(
    key: Key[Array, ''], image: Image, *, limit: tuple[float, float] = (80, 120)
) -> Image:
    """Gamma by an exponent drawn from `limit`.

    Args:
      key: PRNG key.
      image: float32 in [0, 1].
      limit: lowest and highest exponent, in per cent.
    """
    low, high = limit
    exponent = jax.random.uniform(key, minval=low / 100, maxval=high / 100)
    return adjust_gamma(image, exponent)


def random_brightness(key: Key[Array, ''], image: Image, *, limit: float = 0.2) -> Image:
    """Brightness by an offset drawn from [-limit, limit].

    Args:
      key: PRNG key.
      image: float32 in [0, 1].
      limit: largest offset as a share of the full range, 0 to 1.
    """
    return adjust_brightness(image, limit * _symmetric(key))


def adjust_contrast(image: Image, factor: Scalar) -> Image:
    """Multiplies the image by `factor`: black stays black, the mean is not kept."""
    return jnp.clip(image * factor, 0.0, 1.0)


def adjust_gamma(image: Image, exponent: Scalar) -> Image:
    """Raises the image to a power above 0: below 1 brightens, above 1 darkens."""
    return jnp.clip(jnp.power(image, exponent), 0.0, 1.0)


def adjust_brightness(image: Image, offset: Scalar) -> Image:
    """Adds `offset`, a share of the full range, to every pixel."""
    return jnp.clip(image + offset, 0.0, 1.0)


def _symmetric(key: Key[Array, '']) -> Float[Array, '']:
    return jax.random.uniform(key, minval=-1.0, maxval=1.0)
