"""Fits an image of any shape into a square without distortion, and maps a result back.

Everything between the cache and the probabilities works on squares of `config.image_size`.
"""

from typing import NamedTuple

import cv2
import numpy as np


class Fit(NamedTuple):
    """The position of an image inside its square, in pixels of the square."""

    top: int
    left: int
    height: int
    width: int


def fit_of(shape: tuple[int, int], size: int, aspect: float = 1.0) -> Fit:
    """Scales an image of `shape` (H, W) to the largest that fits size x size, and centres it.

    Args:
      shape: height and width of the image in pixels.
      size: side of the square in pixels.
      aspect: height over width of one pixel of the image; pixels of the square are square.
    """
    h, w = shape[0] * aspect, shape[1]
    scale = size / max(h, w)
    height, width = max(1, round(h * scale)), max(1, round(w * scale))
    return Fit((size - height) // 2, (size - width) // 2, height, width)


def fit_image(image: np.ndarray, size: int, aspect: float = 1.0) -> np.ndarray:
    """Scales uint8 [H, W] into uint8 [size, size] with black margins.

    Shrinking averages areas, which avoids aliasing; enlarging is bilinear, as in the authors' code
    (A).
    """
    fit = fit_of(image.shape, size, aspect)
    if aspect == 1:
        interpolation = cv2.INTER_AREA if size < max(image.shape) else cv2.INTER_LINEAR
        scaled = cv2.resize(image, (fit.width, fit.height), interpolation=interpolation)
    else:  # one axis may grow while the other shrinks
        scaled = _resize_height(image, fit.height)
        scaled = _resize_height(scaled.T, fit.width).T
    if scaled.shape == (size, size):
        return scaled
    square = np.zeros((size, size), image.dtype)
    square[fit.top : fit.top + fit.height, fit.left : fit.left + fit.width] = scaled
    return square


def fit_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Scales a 0/1 mask [H, W] like its image; a pixel is 1 if at least half of its area was.

    The authors' code keeps any value above 0 after a bilinear resize, which dilates the mask (A).
    """
    return (fit_image(mask * np.uint8(255), size) >= 128).astype(np.uint8)


def unfit(probability: np.ndarray, shape: tuple[int, int], aspect: float = 1.0) -> np.ndarray:
    """Maps a square result [S, S] float32 back to an image of `shape` (H, W), bilinearly."""
    fit = fit_of(shape, probability.shape[0], aspect)
    inner = probability[fit.top : fit.top + fit.height, fit.left : fit.left + fit.width]
    return cv2.resize(inner, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def _resize_height(image: np.ndarray, height: int) -> np.ndarray:
    interpolation = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(
        np.ascontiguousarray(image), (image.shape[1], height), interpolation=interpolation
    )
