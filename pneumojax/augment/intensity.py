"""Changes of grey value: contrast, gamma, brightness.

Policy: images are float32 [H, W, C] in [0, 1] and every result is clipped to [0, 1]. Masks pass
through untouched. The `adjust_*` functions are deterministic; the `random_*` ones draw one number
from `key` and call them. The definitions are those of albumentations 0.3 (2019), which the authors
of 2ST-UNet used in their later released code (Ayat-Abedalla/Ens4B-UNet).
"""

import jax
import jax.numpy as jnp


def adjust_contrast(image, factor):
    """Multiplies the image by `factor`: black stays black, the mean is not kept.

    Args:
      image: float32 [H, W, C] in [0, 1].
      factor: float, 1 leaves the image as it is.

    Returns:
      float32 [H, W, C], clipped to [0, 1].
    """
    return jnp.clip(image * factor, 0.0, 1.0)


def adjust_gamma(image, exponent):
    """Raises the image to the power `exponent`: below 1 brightens, above 1 darkens.

    Args:
      image: float32 [H, W, C] in [0, 1].
      exponent: float above 0, 1 leaves the image as it is.

    Returns:
      float32 [H, W, C] in [0, 1].
    """
    return jnp.clip(jnp.power(image, exponent), 0.0, 1.0)


def adjust_brightness(image, offset):
    """Adds `offset`, a share of the full range, to every pixel.

    Args:
      image: float32 [H, W, C] in [0, 1].
      offset: float, 0 leaves the image as it is.

    Returns:
      float32 [H, W, C], clipped to [0, 1].
    """
    return jnp.clip(image + offset, 0.0, 1.0)


def random_contrast(key, image, mask, *, limit=0.2):
    """Contrast by a factor drawn from [1 - limit, 1 + limit].

    Args:
      key: PRNG key.
      image: float32 [H, W, C] in [0, 1].
      mask: float32 [H, W, 1] in {0, 1}.
      limit: largest change of the factor, 0 to 1.

    Returns:
      (image, mask), same shapes; the mask unchanged.
    """
    return adjust_contrast(image, 1.0 + limit * _symmetric(key)), mask


def random_gamma(key, image, mask, *, limit=(80, 120)):
    """Gamma by an exponent drawn from `limit`.

    Args:
      key: PRNG key.
      image: float32 [H, W, C] in [0, 1].
      mask: float32 [H, W, 1] in {0, 1}.
      limit: (low, high), the exponent in per cent, both above 0.

    Returns:
      (image, mask), same shapes; the mask unchanged.
    """
    low, high = limit
    exponent = jax.random.uniform(key, minval=low / 100, maxval=high / 100)
    return adjust_gamma(image, exponent), mask


def random_brightness(key, image, mask, *, limit=0.2):
    """Brightness by an offset drawn from [-limit, limit].

    Args:
      key: PRNG key.
      image: float32 [H, W, C] in [0, 1].
      mask: float32 [H, W, 1] in {0, 1}.
      limit: largest offset as a share of the full range, 0 to 1.

    Returns:
      (image, mask), same shapes; the mask unchanged.
    """
    return adjust_brightness(image, limit * _symmetric(key)), mask


def random_tone(key, image, mask, *, contrast=0.2, gamma=(80, 120), brightness=0.2):
    """One of contrast, gamma and brightness, each as likely.

    Args:
      key: PRNG key.
      image: float32 [H, W, C] in [0, 1].
      mask: float32 [H, W, 1] in {0, 1}.
      contrast: `limit` of `random_contrast`.
      gamma: `limit` of `random_gamma`.
      brightness: `limit` of `random_brightness`.

    Returns:
      (image, mask), same shapes; the mask unchanged.
    """
    which_key, key = jax.random.split(key)
    choices = (
        random_contrast(key, image, mask, limit=contrast)[0],
        random_gamma(key, image, mask, limit=gamma)[0],
        random_brightness(key, image, mask, limit=brightness)[0],
    )
    return jax.lax.select_n(jax.random.randint(which_key, (), 0, 3), *choices), mask


def _symmetric(key):
    return jax.random.uniform(key, minval=-1.0, maxval=1.0)
