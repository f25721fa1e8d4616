"""Fits an image of any shape into a square without distortion, and maps a result back.

Everything between the cache and the probabilities works on squares of `config.image_size`.
"""

from typing import NamedTuple

import cv2
import numpy as np


class Fit(NamedTuple):
    """Where an image lies inside its square, in pixels of the square."""

    top: int
    left: int
    height: int
    width: int


def fit_of(shape: tuple[int, int], size: int) -> Fit:
    """Scales an image of `shape` (H, W) to touch two sides of size x size, and centres it."""
    h, w = shape
    scale = size / max(h, w)
    height, width = max(1, round(h * scale)), max(1, round(w * scale))
    return Fit((size - height) // 2, (size - width) // 2, height, width)


def fit_image(image: np.ndarray, size: int) -> np.ndarray:
    """Scales [H, W] uint8 into [size, size] uint8; margins are black.

    Shrinking averages areas (no aliasing); enlarging is bilinear, as the authors' code is (A).
    """
    fit = fit_of(image.shape, size)
    interpolation = cv2.INTER_AREA if fit.height < image.shape[0] else cv2.INTER_LINEAR
    scaled = cv2.resize(image, (fit.width, fit.height), interpolation=interpolation)
    if scaled.shape == (size, size):
        return scaled
    square = np.zeros((size, size), image.dtype)
    square[fit.top : fit.top + fit.height, fit.left : fit.left + fit.width] = scaled
    return square


def fit_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Scales a 0/1 mask [H, W] like its image: a pixel is in where at least half of it was.

    The authors' code keeps any value above 0 after a bilinear resize, which dilates the mask (A).
    """
    return (fit_image(mask * np.uint8(255), size) >= 128).astype(np.uint8)


def unfit(probability: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Maps a square result [S, S] float32 back to an image of `shape` (H, W), bilinearly."""
    fit = fit_of(shape, probability.shape[0])
    inner = probability[fit.top : fit.top + fit.height, fit.left : fit.left + fit.width]
    return cv2.resize(inner, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
