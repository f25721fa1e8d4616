"""Masks drawn on radiographs."""

import os
import pathlib

import cv2
import numpy as np
from numpy.typing import ArrayLike

from pneumojax.system import atomic

# RGB of Okabe and Ito's colours (2008), which people with any colour blindness can tell apart.
PREDICTED = (230, 159, 0)  # orange
TRUE = (86, 180, 233)  # sky blue
FILL = 0.22  # opacity of the predicted area: the lung must stay visible through it

_SHIFT = 4  # fractional bits of OpenCV's sub-pixel coordinates


def overlay(
    image: ArrayLike,
    predicted: ArrayLike,
    true: ArrayLike | None = None,
    *,
    side: int | None = None,
) -> np.ndarray:
    """Draws the predicted mask (orange, lightly filled) and the true outline (blue) on an image.

    Args:
      image: uint8 [H, W], grey.
      predicted: [H, W] any dtype, nonzero inside the predicted mask.
      true: [H, W] any dtype, nonzero inside the true mask; not drawn when None.
      side: pixels of the longer side of the picture; the image's own size when None. Lines are
        drawn at this size, so small images stay sharp on a page.

    Returns:
      uint8 RGB, [H, W, 3] or with `side` as its longer side.

    Raises:
      ValueError: the image is not uint8 [H, W] or a mask has another shape.
    """
    image = np.asarray(image)
    if image.ndim != 2 or image.dtype != np.uint8:
        raise ValueError(f'uint8 [H, W] image expected, got {image.dtype} {image.shape}')
    masks = [
        np.zeros_like(image) if mask is None else np.asarray(mask) for mask in (predicted, true)
    ]
    for mask in masks:
        if mask.shape != image.shape:
            raise ValueError(f'image {image.shape} and mask {mask.shape} differ')
    predicted, true = (np.where(mask != 0, np.uint8(255), np.uint8(0)) for mask in masks)

    picture = cv2.cvtColor(resize(image, side), cv2.COLOR_GRAY2RGB)
    inside = resize(predicted, side) > 127
    tint = picture[inside] * (1 - FILL) + np.array(PREDICTED) * FILL
    picture[inside] = tint.astype(np.uint8)
    line = max(1, round(max(picture.shape) / 512))
    scale = max(picture.shape) / max(image.shape)
    for mask, colour in ((true, TRUE), (predicted, PREDICTED)):
        # Outlines come from the mask at its own size: resizing could erase small regions.
        outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        outlines = [_fixed_point((points + 0.5) * scale - 0.5) for points in outlines]
        cv2.polylines(picture, outlines, True, colour, line, cv2.LINE_AA, _SHIFT)
        for points in outlines:
            if np.ptp(points, axis=0).max() < 2 * line << _SHIFT:  # polylines draws no specks
                centre, radius = _fixed_point(points.mean(axis=0)[0] / 2**_SHIFT), line << _SHIFT
                cv2.circle(picture, centre.tolist(), radius, colour, -1, cv2.LINE_AA, _SHIFT)
    return picture


def write_png(path: str | os.PathLike, rgb: ArrayLike) -> None:
    """Writes an RGB or grey picture; the file appears whole or not at all.

    Args:
      path: of the file; its folder is made.
      rgb: uint8 [H, W, 3] RGB or [H, W] grey.
    """
    path, rgb = pathlib.Path(path), np.asarray(rgb)
    picture = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR) if rgb.ndim == 3 else rgb
    done, encoded = cv2.imencode('.png', picture)
    if not done:
        raise ValueError(f'{path}: {rgb.dtype} {rgb.shape} cannot be written as PNG')
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(path, encoded.tobytes())


def resize(image: np.ndarray, side: int | None) -> np.ndarray:
    """The image with `side` pixels on its longer side; None leaves it as it is."""
    height, width = image.shape
    if side is None or side == max(height, width):
        return image
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _fixed_point(points: np.ndarray) -> np.ndarray:
    """Coordinates as OpenCV's drawing functions take them, with `_SHIFT` fractional bits."""
    return np.round(points * 2**_SHIFT).astype(np.int32)
