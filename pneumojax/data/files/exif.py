"""The orientation that EXIF metadata state: viewers turn an image by it before they show it."""

import io
from typing import BinaryIO

import numpy as np

UPRIGHT = 1  # as stored
_TAG = 0x0112  # EXIF 2.3, 4.6.4: Orientation
_SIZES = {3: 2, 4: 4}  # bytes of the types SHORT, which the standard asks for, and LONG
_MAX_PARTS = 100_000  # segments or chunks of a file that are looked at
_MAX_BYTES = 1 << 16  # of the metadata, which is all that a JPEG segment can hold


def orientation(file: BinaryIO) -> int:
    """The orientation, 1 to 8, of a PNG or JPEG file; 1 unless it states another one.

    Args:
      file: open at its start; only its metadata are read.
    """
    try:
        start = file.read(8)
        if start.startswith(b'\x89PNG'):
            tiff = file.read(min(max(find_chunk(file, b'eXIf'), 0), _MAX_BYTES))
        elif start.startswith(b'\xff\xd8'):
            file.seek(2)
            tiff = _jpeg_exif(file)
        else:
            return UPRIGHT
    except OSError:  # reading the image will report it
        return UPRIGHT
    return of_tiff(tiff)


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns stored pixels the way a viewer shows them.

    Args:
      pixels: [H, W, ...].
      orientation: 1 to 8, whose names say where the stored first row and column belong (EXIF 2.3,
        4.6.4): 1 top left, 2 top right, 3 bottom right, 4 bottom left, 5 left top, 6 right top,
        7 right bottom, 8 left bottom.

    Returns:
      A contiguous array [H, W, ...], or [W, H, ...] for 5 to 8.
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def find_chunk(file: BinaryIO, name: bytes) -> int:
    """Goes to the content of the first such chunk of a PNG file.

    Args:
      file: open behind the signature, which has 8 bytes.
      name: of the chunk, 4 bytes.

    Returns:
      The length that the chunk states; -1 if there is none.
    """
    for _ in range(_MAX_PARTS):
        head = file.read(8)
        if len(head) < 8:
            break
        length = int.from_bytes(head[:4])
        if head[4:] == name:
            return length
        file.seek(length + 4, io.SEEK_CUR)
    return -1


def _jpeg_exif(file: BinaryIO) -> bytes:
    for _ in range(_MAX_PARTS):
        head = file.read(2)
        while head[1:] == b'\xff':  # fill bytes
            head = b'\xff' + file.read(1)
        # SOS (FF DA) ends the metadata; a marker without a length does not occur before it.
        if len(head) < 2 or head[0] != 0xFF or 0xD0 <= head[1] <= 0xDA:
            break
        length = int.from_bytes(file.read(2)) - 2
        if length < 0:
            break
        if head[1] == 0xE1:
            content = file.read(length)
            if content.startswith(b'Exif\0'):
                return content[6:]
        else:
            file.seek(length, io.SEEK_CUR)
    return b''


def of_tiff(tiff: bytes) -> int:
    """Reads the tag from the first directory of a TIFF structure (TIFF 6.0, section 2)."""
    order = {b'II*\0': 'little', b'MM\0*': 'big'}.get(tiff[:4])
    if order is None:
        return UPRIGHT

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)  # type: ignore[arg-type]

    start = number(4, 4)
    for at in range(start + 2, min(start + 2 + 12 * number(start, 2), len(tiff) - 11), 12):
        if number(at, 2) == _TAG:
            size = _SIZES.get(number(at + 2, 2), 0)
            if not 0 < size * number(at + 4, 4) <= 4:  # of more bytes, these say where they are
                return UPRIGHT
            value = number(at + 8, size)
            return value if 1 <= value <= 8 else UPRIGHT
    return UPRIGHT
