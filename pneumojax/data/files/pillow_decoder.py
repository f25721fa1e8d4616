"""Decodes TIFF, BMP and WebP with Pillow, which refuses data that end too early or are damaged.

OpenCV, which reads PNG, returns 8-bit TIFF pictures with the damaged part black. It runs in a
helper process, see `sandbox`.
"""

import io

import numpy as np
from PIL import Image

NAME = 'pillow_decoder'  # as the name of a plugin
_GREY, _COLOUR = ('L', 'I;16', 'I;16B', 'I;16L'), ('RGB', 'RGBA', 'RGBX', 'P')


def decode(data: bytes, kind: str) -> np.ndarray:
    """Decodes a file of which `picture_layouts` approves.

    Args:
      data: the whole file.
      kind: 'TIFF', 'BMP' or 'WEBP'.

    Returns:
      uint8 or uint16 [H, W], or uint8 [H, W, 3], red first. Transparency is dropped.

    Raises:
      ValueError: another kind of pixels.
      Exception: of any other type; the data are damaged.
    """
    Image.MAX_IMAGE_PIXELS = None  # our own limit is checked before
    with Image.open(io.BytesIO(data), formats=[kind]) as image:
        image.load()
        if image.mode in _COLOUR:
            return np.asarray(image.convert('RGB'))
        if image.mode not in _GREY:
            raise ValueError(image.mode)
        pixels = np.asarray(image)
    return pixels.astype(pixels.dtype.newbyteorder('='))
