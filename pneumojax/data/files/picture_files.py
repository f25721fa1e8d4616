"""Reads radiographs and masks saved as PNG or JPEG."""

import os

import cv2
import numpy as np

from pneumojax.data.files import codestreams, strict_jpeg
from pneumojax.system import limits

PNG, JPEG = b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff'
_AS_SHOWN = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
# JPEG rounds colour and stores it at half resolution, so equal channels come back nearly equal.
_NEARLY_GREY = 4


class Colour(ValueError):
    """An image whose channels differ."""


def read(path: str | os.PathLike, *, max_pixels: int) -> np.ndarray:
    """Reads a grey PNG or JPEG file; grey saved as RGB is accepted, transparency is ignored.

    Args:
      path: the file.
      max_pixels: images that claim more pixels are refused before any memory is allocated.

    Returns:
      uint8 [H, W]; 16-bit images are scaled from their smallest and largest value, like 16-bit
      DICOM files without a window. An EXIF rotation is applied, as in viewers.

    Raises:
      Colour: the channels differ.
      ValueError: the file is damaged or too large; the message does not name its path.
    """
    return _to_uint8(_grey(_decode(_bytes(path), max_pixels, _AS_SHOWN)))


def read_mask(path: str | os.PathLike, *, max_pixels: int) -> np.ndarray:
    """Reads a mask from a PNG file; every pixel that is not black is inside.

    Args:
      path: the file.
      max_pixels: images that claim more pixels are refused before any memory is allocated.

    Returns:
      uint8 [H, W], 0 or 1.

    Raises:
      ValueError: the file is not PNG, damaged, partly transparent or too large; the message does
        not name its path.
    """
    data = _bytes(path)
    if not data.startswith(PNG):
        raise ValueError('a mask is a PNG file (JPEG changes pixels); save it as PNG')
    pixels = _decode(data, max_pixels, cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 2:
        return (pixels != 0).astype(np.uint8)
    if pixels.shape[2] == 4:
        # A mask drawn only as transparency would be read as empty.
        if np.ptp(pixels[..., 3]):
            raise ValueError('the mask is partly transparent; save it in black and white')
        pixels = pixels[..., :3]
    return np.asarray(pixels.any(axis=2), np.uint8)


def _bytes(path: str | os.PathLike) -> bytes:
    try:
        limits.check_file(path, limits.MAX_IMAGE_BYTES)
        with open(path, 'rb') as file:
            return file.read()
    except OSError as error:
        raise ValueError(f'cannot be read: {error.strerror}') from None


def _decode(data: bytes, max_pixels: int, how: int) -> np.ndarray:
    png = data.startswith(PNG)
    height, width = _png_size(data) if png else _jpeg_size(data)
    if height * width > max_pixels:
        raise ValueError(
            f'claims {height} x {width} pixels, more than the limit of {max_pixels}; '
            'downsample the image first'
        )
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.size != height * width * (pixels.size // (height * width)):
        raise ValueError('the image is damaged; copy the file again')
    if not png:
        strict_jpeg.check(data)
    return pixels


def _grey(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels
    channels = [pixels[..., i] for i in range(3)]
    middle = channels[1]
    tolerance = _NEARLY_GREY * (257 if pixels.dtype == np.uint16 else 1)
    for other in (channels[0], channels[2]):
        if cv2.absdiff(middle, other).max() > tolerance:
            raise Colour('a colour image, not a radiograph')
    return np.ascontiguousarray(middle)


def _to_uint8(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    low, high = int(pixels.min()), int(pixels.max())
    table = (np.arange(1 << 16) - low) * (255 / max(high - low, 1))
    return np.rint(table.clip(0, 255)).astype(np.uint8)[pixels]


def _png_size(data: bytes) -> tuple[int, int]:
    if data[12:16] != b'IHDR' or not data[:29].startswith(PNG):
        raise ValueError('the image is damaged; copy the file again')
    # OpenCV would silently fill in the missing rows of a file that is cut short.
    if b'IEND' not in data[-1024:]:
        raise ValueError('cut short: the PNG file has no end; copy it again')
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    return _checked(height, width)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    end = data.rfind(b'\xff\xd9', -1024)
    if end < 0:
        raise ValueError('cut short: the JPEG file has no end; copy it again')
    height, width, *_ = codestreams.jpeg_header(data[: end + 2])
    return _checked(height, width)


def _checked(height: int, width: int) -> tuple[int, int]:
    if height < 1 or width < 1:
        raise ValueError(f'claims {height} x {width} pixels; copy the file again')
    return height, width
