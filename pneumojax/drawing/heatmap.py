"""Probabilities as colours on the radiograph."""

import cv2
import numpy as np
from numpy.typing import ArrayLike

OPACITY = 0.75  # where the probability is 1
_BAR = 0.03  # width of the scale, as a share of the picture's


def heatmap(image: ArrayLike, probability: ArrayLike) -> np.ndarray:
    """Lays probabilities over an image: none at 0, dark violet, orange, yellow at 1.

    Args:
      image: uint8 [H, W], grey.
      probability: float [H, W], in [0, 1].

    Returns:
      uint8 RGB [H, W, 3], with the colour scale (1 at the top) along the right edge.

    Raises:
      ValueError: the shapes differ.
    """
    image, probability = np.asarray(image), np.asarray(probability, np.float32)
    if image.shape != probability.shape:
        raise ValueError(f'image {image.shape} and probability {probability.shape} differ')
    picture = _blend(image, probability)
    height, width = image.shape
    bar = max(1, round(width * _BAR))
    scale = np.repeat(np.linspace(1, 0, height, dtype=np.float32)[:, None], bar, axis=1)
    picture[:, width - bar :] = _blend(np.full(scale.shape, 64, np.uint8), scale)
    return picture


def _blend(image: np.ndarray, probability: np.ndarray) -> np.ndarray:
    steps = np.rint(probability.clip(0, 1) * 255).astype(np.uint8)
    colours = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_INFERNO)
    colours = colours.reshape(256, 3)[:, ::-1]  # to RGB
    opacity = (np.arange(256) / 255 * OPACITY).astype(np.float32)[:, None]
    tint = (colours * opacity).astype(np.float32)
    grey = image[..., None].astype(np.float32)
    return np.rint(grey * (1 - opacity[steps]) + tint[steps]).astype(np.uint8)
