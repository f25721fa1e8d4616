"""Compares compressed pixel data with the tags before a decoder allocates memory for it.

A stream states its own size, and decoders trust it: 1 kB can ask for gigabytes. Only headers are
parsed here, as laid out in the standards (ITU-T T.81, T.87, T.800; PS3.5 annex G).
"""

import numpy as np
from pydicom import uid

JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
_JPEG_LIKE = (
    *JPEG, uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEGLSNearLossless,
)  # fmt: skip
_JPEG2000_LIKE = (
    uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K,
)  # fmt: skip
# Frame headers: T.81 table B.1 (C4, C8, CC are other markers), and F7 of JPEG-LS.
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x00, 0x01, *range(0xD0, 0xDA)}  # markers without a length, or that end the header
MAX_SCANS = 200  # a progressive file has about ten; each one costs a pass over the whole image
_AGAIN = 'export the image again'


class StreamError(ValueError):
    """A stream that cannot be decoded safely; the message says why and what to do."""


def check(
    frame: bytes, syntax: uid.UID, rows: int, columns: int, bits: int, samples: int = 1
) -> int | None:
    """Compares the header of a frame with the tags.

    Args:
      frame: the compressed bytes of one frame.
      syntax: its transfer syntax.
      rows, columns: according to the tags, pixels.
      bits: allocated per sample according to the tags.
      samples: per pixel according to the tags.

    Returns:
      Bits per sample according to the stream; None if it does not state them.

    Raises:
      StreamError: the stream has another type, size or number of channels, or no end.
    """
    if syntax in _JPEG_LIKE:
        found = jpeg_header(frame)
    elif syntax in _JPEG2000_LIKE:
        found = jpeg2000_header(frame)
    elif syntax == uid.RLELossless:
        _check_rle(frame, rows * columns, samples * -(-bits // 8))
        return None
    else:
        return None
    height, width, components, precision = found
    if (height, width, components) != (rows, columns, samples):
        raise StreamError(
            f'the compressed image inside has {height} x {width} pixels and {components} '
            f'components, the tags say {rows} x {columns} and {samples}; {_AGAIN}'
        )
    return precision


def jpeg_header(frame: bytes) -> tuple[int, int, int, int]:
    """(height, width, components, bits) of a JPEG or JPEG-LS stream. Raises StreamError."""
    if frame[:2] != b'\xff\xd8':
        raise StreamError(f'the pixel data is not JPEG as the tags say; {_AGAIN}')
    # OpenCV would silently fill in the missing rows of a stream without an end marker.
    if not frame.rstrip(b'\0\xff').endswith(b'\xff\xd9'):
        raise StreamError('cut short: the JPEG pixel data has no end; copy the file again')
    if _count_scans(frame) > MAX_SCANS:
        raise StreamError(f'the JPEG image has more than {MAX_SCANS} scans; {_AGAIN}')
    position = 2
    while position + 9 < len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        length = int.from_bytes(frame[position + 2 : position + 4])
        # A decoder would continue at another position, and might find another size there.
        if marker in _ALONE or length < 2:
            break
        if marker in _FRAMES:
            height = int.from_bytes(frame[position + 5 : position + 7])
            width = int.from_bytes(frame[position + 7 : position + 9])
            return height, width, frame[position + 9], frame[position + 4]
        position += 2 + length
    raise StreamError('the JPEG pixel data has no frame header; copy the file again')


def _count_scans(frame: bytes) -> int:
    """Counts FF DA; bytes.count would take seven times as long, a tenth of decoding."""
    words = (np.frombuffer(frame, '<u2', (len(frame) - start) // 2, start) for start in (0, 1))
    return sum(int(np.count_nonzero(some == 0xDAFF)) for some in words)


def jpeg2000_header(frame: bytes) -> tuple[int, int, int, int]:
    """The same for a JPEG 2000 codestream, bare (as in DICOM) or in a JP2 file."""
    if frame[4:8] == b'jP  ':
        at = frame.find(b'jp2c')
        if at < 0 or frame.count(b'jp2c') > 1:
            raise StreamError(f'the JPEG 2000 file inside is unusual; {_AGAIN}')
        frame = frame[at + 4 :]
    if frame[:4] != b'\xff\x4f\xff\x51' or len(frame) < 43:
        raise StreamError(f'the pixel data is not JPEG 2000 as the tags say; {_AGAIN}')
    _check_tile_parts(frame)
    right, bottom, left, top, *tile = (int.from_bytes(frame[at : at + 4]) for at in range(8, 40, 4))
    tile_width, tile_height, tile_left, tile_top = tile
    height, width = bottom - top, right - left
    if not (tile_width and tile_height) or tile_left > left or tile_top > top:
        raise StreamError(f'the JPEG 2000 image inside has no valid tiles; {_AGAIN}')
    across = -(-(right - tile_left) // tile_width)
    if across * -(-(bottom - tile_top) // tile_height) > 65535:  # T.800 A.4.2
        raise StreamError(f'the JPEG 2000 image inside has too many tiles; {_AGAIN}')
    return height, width, int.from_bytes(frame[40:42]), (frame[42] & 0x7F) + 1


def _check_tile_parts(frame: bytes) -> None:
    """Checks that the tile parts reach the end, as OpenJPEG invents what is missing."""
    end = len(frame.rstrip(b'\0\xff')) - 2
    if frame[end : end + 2] != b'\xff\xd9':
        raise StreamError('cut short: the JPEG 2000 data has no end; copy the file again')
    at = 2
    while at < end and frame[at : at + 2] != b'\xff\x90':  # the main header
        at += 2 + max(int.from_bytes(frame[at + 2 : at + 4]), 2)
    while at < end and frame[at : at + 2] == b'\xff\x90':
        length = int.from_bytes(frame[at + 6 : at + 10])
        at = at + max(length, 14) if length else end  # 0: up to the end
    if at != end:
        raise StreamError('the JPEG 2000 data is incomplete; copy the file again')


def _check_rle(frame: bytes, pixels: int, planes: int) -> None:
    """Counts what each segment unpacks to before it is decoded: two bytes can give 128."""
    count = int.from_bytes(frame[:4], 'little')
    if len(frame) < 64 or count != planes:
        raise StreamError(f'the RLE pixel data has {count} segments, expected {planes}; {_AGAIN}')
    starts = [int.from_bytes(frame[4 + 4 * i : 8 + 4 * i], 'little') for i in range(count)]
    for start, end in zip(starts, [*starts[1:], len(frame)], strict=True):
        if not 64 <= start <= end <= len(frame):
            raise StreamError('the RLE segments are not in order; copy the file again')
        if 64 * (end - start) > 2 * pixels + (1 << 20) and _unpacked(frame, start, end) > (
            pixels + 256
        ):
            raise StreamError(f'an RLE segment holds more than {pixels} pixels; {_AGAIN}')


def _unpacked(frame: bytes, start: int, end: int) -> int:
    total = 0
    while start < end:
        control = frame[start]
        start += 2 if control > 128 else 1 if control == 128 else control + 2
        total += 257 - control if control > 128 else 0 if control == 128 else control + 1
    return total
