"""Reads radiographs saved as PNG, JPEG, TIFF, BMP, WebP or JPEG 2000, and masks saved as PNG."""

import io
import os
import zlib
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from pydicom import uid

from pneumojax.data.files import (
    codestreams,
    exif,
    picture_layouts,
    pillow_decoder,
    sandbox,
    strict_jpeg,
)
from pneumojax.system import limits

PNG, JPEG = b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff'
# The orientation is applied here, so that images and masks are certainly turned alike.
_AS_STORED = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
# JPEG rounds colour and stores it at half resolution, so equal channels come back nearly equal.
_NEARLY_GREY = 4
_MAX_LABELS = 8  # a mask with more values than that, up to white, has soft edges
_PALETTE = 3  # colour type of a PNG file


class NotGrey(ValueError):
    """A picture that is no single grey image; the message says what it is."""


class Picture(NamedTuple):
    """A picture as viewers show it."""

    pixels: np.ndarray  # uint8 [H, W]
    orientation: int  # that EXIF states and `pixels` are turned by, see `exif`


class Mask(NamedTuple):
    """A mask as viewers show it."""

    pixels: np.ndarray  # uint8 [H, W], 0 or 1
    orientation: int  # that EXIF states and `pixels` are turned by, see `exif`
    values: Literal['black and white', 'labels', 'soft']  # what the file holds


def read(path: str | os.PathLike, *, max_pixels: int) -> Picture:
    """Reads a grey picture; grey saved as RGB is accepted, transparency is ignored.

    Args:
      path: the file.
      max_pixels: images that claim more pixels are refused before any memory is allocated.

    Returns:
      8-bit pixels; 16-bit images are scaled from their smallest and largest value, like 16-bit
      DICOM files without a window.

    Raises:
      NotGrey: the channels differ, or there are several pages or frames.
      ValueError: the file is damaged, too large or of a kind of pixels that is not read; the
        message does not name its path.
    """
    data = _bytes(path)
    if picture_layouts.kind(data[:64]):
        pixels, orientation = _in_helper(data, max_pixels)
    else:
        data = _without_padding(data)
        pixels = _decode(data, max_pixels, _AS_STORED)
        orientation = exif.orientation(io.BytesIO(data))
    return Picture(exif.turn(_to_uint8(_grey(pixels)), orientation), orientation)


def is_picture(head: bytes) -> bool:
    """Whether `read` reads such a file, by its first bytes (at least 30)."""
    return head.startswith((PNG, JPEG)) or picture_layouts.kind(head) is not None


def read_mask(path: str | os.PathLike, *, max_pixels: int) -> Mask:
    """Reads a mask from a PNG file; every pixel that is not black is inside.

    The exception is a mask with soft edges, as from a blur or a resize. It has many values up to
    white, and its pixels count from half of white: a blurred edge would otherwise grow the mask.

    Args:
      path: the file.
      max_pixels: images that claim more pixels are refused before any memory is allocated.

    Raises:
      ValueError: the file is not PNG, damaged, partly transparent, too large, or its palette shows
        some of its values alike; the message does not name its path.
    """
    data = _without_padding(_bytes(path))
    if not data.startswith(PNG):
        raise ValueError('a mask is a PNG file (JPEG changes pixels); save it as PNG')
    pixels = _decode(data, max_pixels, cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        # A mask drawn only as transparency would be read as empty.
        if np.ptp(pixels[..., 3]):
            raise ValueError('the mask is partly transparent; save it in black and white')
        pixels = pixels[..., :3]
    grey = pixels.ndim == 2 or bool((pixels == pixels[..., :1]).all())
    brightness = pixels if pixels.ndim == 2 else pixels.max(axis=2)
    if data[25] == _PALETTE:
        brightness = _with_palette(data, brightness, max_pixels)
    inside, values = _inside(brightness, soft=grey or data[25] != _PALETTE)
    orientation = exif.orientation(io.BytesIO(data))
    return Mask(exif.turn(inside, orientation), orientation, values)


def _inside(
    brightness: np.ndarray, *, soft: bool
) -> tuple[np.ndarray, Literal['black and white', 'labels', 'soft']]:
    found = np.flatnonzero(np.bincount(brightness.ravel()))
    found = found[found > 0]
    if len(found) < 2:
        return (brightness != 0).astype(np.uint8), 'black and white'
    white = np.iinfo(brightness.dtype).max
    if soft and len(found) > _MAX_LABELS and found[-1] > white // 2:
        return (brightness > white // 2).astype(np.uint8), 'soft'
    return (brightness != 0).astype(np.uint8), 'labels'


def _with_palette(data: bytes, brightness: np.ndarray, max_pixels: int) -> np.ndarray:
    """The brightness of a mask with a palette; its indices instead if all that it shows is black.

    Raises:
      ValueError: some of several indices are shown as black, so it is unclear what they mean.
    """
    if brightness.all():
        return brightness
    # Decoded once more with a palette whose colour i is the grey i.
    file = io.BytesIO(data)
    file.seek(len(PNG))
    length = exif.find_chunk(file, b'PLTE')
    at = file.tell()
    chunk = b'PLTE' + bytes(i for i in range(length // 3) for _ in range(3))
    data = data[: at - 4] + chunk + zlib.crc32(chunk).to_bytes(4) + data[at + length + 4 :]
    indices = _decode(data, max_pixels, cv2.IMREAD_UNCHANGED)
    indices = indices if indices.ndim == 2 else np.ascontiguousarray(indices[..., 0])
    if not brightness.any():
        return indices
    if np.ptp(indices[brightness == 0]):
        raise ValueError(
            'its palette shows several of its values as black, so what is inside is unclear; save '
            'it in black and white'
        )
    return brightness


def _bytes(path: str | os.PathLike) -> bytes:
    try:
        limits.check_file(path, limits.MAX_IMAGE_BYTES)
        with limits.BoundedFile(path) as file:
            return file.read()
    except OSError as error:
        raise ValueError(f'cannot be read: {error.strerror}') from None


def _without_padding(data: bytes) -> bytes:
    """Copies and recovered files are often padded with zeros to full blocks."""
    return data.rstrip(b'\0')


def _in_helper(data: bytes, max_pixels: int) -> tuple[np.ndarray, int]:
    """The pixels as stored, decoded in a helper process, and the orientation."""
    try:
        layout = picture_layouts.read(data)
    except picture_layouts.Several as error:
        raise NotGrey(str(error)) from None
    height, width, channels = layout.height, layout.width, layout.channels
    _check_size(height, width, max_pixels)
    tags: dict[str, Any] = {'Rows': height, 'Columns': width}
    if layout.kind == 'JPEG2000':
        tags |= {
            'TransferSyntaxUID': uid.JPEG2000, 'Plugin': 'pylibjpeg', 'SamplesPerPixel': channels,
            'BitsAllocated': 8 if layout.bits == 8 else 16, 'BitsStored': layout.bits,
            'PixelRepresentation': 0, 'PlanarConfiguration': 0,
            'PhotometricInterpretation': 'MONOCHROME2' if channels == 1 else 'RGB',
        }  # fmt: skip
    else:
        tags |= {'Plugin': pillow_decoder.NAME, 'Kind': layout.kind}
    try:
        pixels = sandbox.decode(layout.data, tags)
    except sandbox.DecoderError as error:
        raise ValueError(f'the image is damaged ({error}); copy the file again') from None
    if pixels.shape[:2] != (height, width) or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError('the image is damaged; copy the file again')
    return ~pixels if layout.inverted else pixels, layout.orientation


def _decode(data: bytes, max_pixels: int, how: int) -> np.ndarray:
    png = data.startswith(PNG)
    height, width = _png_size(data) if png else _jpeg_size(data)
    _check_size(height, width, max_pixels)
    if png and not _is_within(data):
        raise ValueError('the image is damaged; copy the file again')
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.size != height * width * (pixels.size // (height * width)):
        raise ValueError('the image is damaged; copy the file again')
    if not png:
        strict_jpeg.check(data)
    return pixels


def _check_size(height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise ValueError(
            f'claims {height} x {width} pixels, more than the limit of {max_pixels}; '
            'downsample the image first'
        )


def _is_within(png: bytes) -> bool:
    """Whether no chunk states a length beyond the end, as much as OpenCV would allocate."""
    at = len(PNG)
    while at + 8 <= len(png) and png[at + 4 : at + 8] != b'IEND':
        at += 12 + int.from_bytes(png[at : at + 4])
    return at <= len(png)


def _grey(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels
    channels = [pixels[..., i] for i in range(3)]
    middle = channels[1]
    tolerance = _NEARLY_GREY * (257 if pixels.dtype == np.uint16 else 1)
    for other in (channels[0], channels[2]):
        if cv2.absdiff(middle, other).max() > tolerance:
            raise NotGrey('a colour image, not a radiograph')
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
