"""From grey values to what the network was trained on."""

from typing import Any

from jaxtyping import Float, Shaped

from pneumojax.config_schema import NORMALIZATIONS

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of red, green, blue in 0 to 1, as torchvision uses them
IMAGENET_STD = (0.229, 0.224, 0.225)
GREY_MEAN = sum(IMAGENET_MEAN) / 3
GREY_STD = sum(IMAGENET_STD) / 3


def normalize(
    images: Shaped[Any, '...'], kind: str, channels: int
) -> Float[Any, 'B H W {channels}']:
    """Normalises grey images and repeats them to the network's channels.

    The kinds, for a grey value x in [0, 1]:

    - 'unit': x. What the 2ST-UNet authors' later code does (division by 255, nothing else).
    - 'symmetric': 2x - 1, from -1 to 1, as TensorFlow's EfficientNets were trained.
    - 'imagenet': (x - mean) / std with ImageNet's mean and standard deviation of each channel, what
      most PyTorch networks were trained on. With one channel it is 'imagenet_grey'.
    - 'imagenet_grey': the same with one pair for all channels, the averages 0.449 and 0.226.

    A one-channel network converted from a three-channel one (`load_resnet34(path, channels=1)` sums
    the stem's kernel over its channels) gives the same features if the three channels it was
    summed over were equal: always but for 'imagenet'. Under 'imagenet' the three
    channels differ by constants. No one-channel kernel can make up for these at the border, where
    the padding is zero after normalisation, so there the two networks differ slightly: a network
    that was fine-tuned with 'imagenet' and three channels should keep its three channels.

    Args:
      images: [B, H, W, 1], uint8 in 0 to 255 or floats in 0 to 1.
      kind: one of `config_schema.NORMALIZATIONS`.
      channels: 1 or 3.

    Returns:
      [B, H, W, channels], float32 (float64 for float64 images).

    Raises:
      ValueError: another shape, type, kind or number of channels.
    """
    import jax.numpy as jnp  # late: who reads the constants alone needs no JAX

    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 1:
        raise ValueError(f'images have shape {images.shape}: expected [B, H, W, 1]')
    if kind not in NORMALIZATIONS:
        raise ValueError(f'normalisation {kind!r}: expected one of {NORMALIZATIONS}')
    if channels not in (1, 3):
        raise ValueError(f'{channels} channels: expected 1 or 3')
    if images.dtype == jnp.uint8:
        images = images.astype(jnp.float32) / 255
    elif not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f'images are {images.dtype}: expected uint8, or floats in 0 to 1')
    images = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    images = jnp.repeat(images, channels, axis=-1)
    if kind == 'unit':
        return images
    mean, std = (jnp.array(values) for values in mean_and_std(kind, channels))
    return ((images - mean) / std).astype(images.dtype)


def mean_and_std(kind: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What `normalize` subtracts from values in [0, 1], and divides them by.

    Args:
      kind: one of `config_schema.NORMALIZATIONS`.
      channels: 1 or 3.

    Returns:
      One number of each for all channels, or three.
    """
    if kind == 'imagenet' and channels == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    return {'unit': ((0.0,), (1.0,)), 'symmetric': ((0.5,), (0.5,))}.get(
        kind, ((GREY_MEAN,), (GREY_STD,))
    )
