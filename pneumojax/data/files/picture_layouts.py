"""How TIFF, BMP, WebP and JPEG 2000 files store their picture, read before anything is decoded.

A file states its own size and its kind of pixels, and decoders trust it. What is here refuses files
that would take too much memory, that hold several pictures, that end too early, and kinds of pixels
that decoders are known to show wrongly or to fill with grey. Only headers are parsed, as laid out
in TIFF 6.0, Microsoft's BITMAPINFOHEADER, Google's WebP container and ITU-T T.800 annex I.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from pneumojax.data.files import codestreams, exif

Kind = Literal['TIFF', 'BMP', 'WEBP', 'JPEG2000']

_TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # the last two are BigTIFF
_JP2 = b'\0\0\0\x0cjP  \r\n\x87\n'
_BMP_HEADERS = (40, 52, 56, 108, 124)  # bytes of BITMAPINFOHEADER and those that extend it
_TIFF_COMPRESSIONS = {1: 'none', 5: 'LZW', 8: 'Deflate', 32946: 'Deflate', 32773: 'PackBits'}
_SIZES = {1: 1, 3: 2, 4: 4}  # bytes of the types BYTE, SHORT and LONG of TIFF
_MAX_ENTRIES = 4096  # of a TIFF directory
_MAX_TAG_BYTES = 1 << 19  # of a TIFF tag that is read, such as the places of the strips
_GREY_AND_RGB = (16, 17)  # enumerated colour spaces of JP2
_SAVE = 'save it as a grey image of 8 or 16 bits'
_CUT = 'cut short: the data of the image end too early; copy the file again'


class Several(ValueError):
    """A file of several pages or frames."""


class Layout(NamedTuple):
    """What a decoder needs to be told."""

    kind: Kind
    height: int
    width: int
    data: bytes  # what to decode; of JPEG 2000 the codestream, of TIFF with 0 as black, upright
    orientation: int = exif.UPRIGHT
    channels: int = 1  # only for JPEG 2000, as is `bits`
    bits: int = 8
    inverted: bool = False  # 0 is white


def kind(head: bytes) -> Kind | None:
    """The kind of a file by its first bytes (at least 30); None for any other."""
    if head.startswith(_TIFF):
        return 'TIFF'
    if head.startswith(b'RIFF') and head[8:12] == b'WEBP':
        return 'WEBP'
    if head.startswith(_JP2):
        return 'JPEG2000'
    # Two letters may start a text, too.
    if head.startswith(b'BM') and head[6:10] == bytes(4) and _little(head, 26, 2) == 1:
        return 'BMP' if _little(head, 14, 4) in (12, 64, *_BMP_HEADERS) else None
    return None


def read(data: bytes) -> Layout:
    """The layout of a file of one of these kinds.

    Raises:
      Several: several pages or frames.
      ValueError: cut short, damaged, or of a kind of pixels that is not read.
    """
    readers = {'TIFF': _tiff, 'BMP': _bmp, 'WEBP': _webp, 'JPEG2000': _jpeg2000}
    found = kind(data[:64])
    assert found is not None
    layout = readers[found](data)
    if layout.height < 1 or layout.width < 1:
        raise ValueError(f'claims {layout.height} x {layout.width} pixels; copy the file again')
    return layout


# --- TIFF --------------------------------------------------------------------------------------


def _tiff(data: bytes) -> Layout:
    order: Literal['little', 'big'] = 'little' if data[:2] == b'II' else 'big'
    if b'+' in data[2:4]:
        raise ValueError('a BigTIFF file; save it as TIFF')
    start = int.from_bytes(data[4:8], order)
    count = int.from_bytes(data[start : start + 2], order)
    end = start + 2 + 12 * count
    if not (start >= 8 and 0 < count <= _MAX_ENTRIES and end + 4 <= len(data)):
        raise ValueError('cut short: the TIFF file has no directory; copy it again')
    if int.from_bytes(data[end : end + 4], order):
        raise Several('a TIFF file of several pages, not one radiograph')
    entries = {int.from_bytes(data[at : at + 2], order): at for at in range(start + 2, end, 12)}
    if len(entries) < count:
        raise ValueError('the TIFF file has a tag twice; copy it again')

    def values(tag: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        at = entries.get(tag)
        if at is None:
            return default
        size = _SIZES.get(int.from_bytes(data[at + 2 : at + 4], order), 0)
        length = size * int.from_bytes(data[at + 4 : at + 8], order)
        where = at + 8 if length <= 4 else int.from_bytes(data[at + 8 : at + 12], order)
        if not size or length > _MAX_TAG_BYTES or where + length > len(data):
            raise ValueError(f'the TIFF tag {tag} is damaged; copy the file again')
        content = data[where : where + length]
        return tuple(int.from_bytes(content[i : i + size], order) for i in range(0, length, size))

    def one(tag: int, default: int) -> int:
        return (values(tag) or (default,))[0]

    width, height = one(256, 0), one(257, 0)
    bits, photometric, channels = values(258, (1,)), one(262, -1), one(277, 1)
    compression, rows = one(259, 1), min(one(278, height) or height, height)
    if photometric not in (0, 1, 2):
        raise ValueError(f'a TIFF file whose colours are not read (palette, CMYK, ...); {_SAVE}')
    if (set(bits), channels) not in (({8}, 1), ({16}, 1), ({8}, 3)) or len(bits) != channels:
        raise ValueError(
            f'a TIFF file of {"/".join(map(str, bits))} bits and {channels} channels; {_SAVE}'
        )
    if (photometric == 2) != (channels == 3) or set(values(339, (1,))) != {1}:
        raise ValueError(f'a TIFF file of signed or decimal numbers, or of odd channels; {_SAVE}')
    if compression not in _TIFF_COMPRESSIONS or one(266, 1) != 1 or one(317, 1) not in (1, 2):
        known = ', '.join(dict.fromkeys(_TIFF_COMPRESSIONS.values()))
        raise ValueError(f'a TIFF file with a compression other than {known}; save it with one')
    if 322 in entries or one(284, 1) != 1:
        raise ValueError('a TIFF file of tiles or planes; save it in strips, as is usual')
    _check_strips(len(data), values(273), values(279), height, rows,
                  width * channels * bits[0] // 8 if compression == 1 else 0)  # fmt: skip
    orientation = one(274, 1) if 1 <= one(274, 1) <= 8 else exif.UPRIGHT
    # Some versions of the decoder turn and invert pictures, others do not: let it do neither.
    for tag in (262, 274):
        if at := entries.get(tag):
            plain = [(3, 2), (1, 4), (max(photometric, 1) if tag == 262 else 1, 2), (0, 2)]
            entry = b''.join(number.to_bytes(size, order) for number, size in plain)
            data = data[: at + 2] + entry + data[at + 12 :]
    inverted = photometric == 0
    return Layout('TIFF', height, width, data, orientation, inverted=inverted)


def _check_strips(
    size: int, offsets: tuple[int, ...], counts: tuple[int, ...], height: int, rows: int, row: int
) -> None:
    """Checks that all strips are there, and whole if a row has a fixed number of bytes."""
    strips = -(-height // rows) if rows else 0
    if len(offsets) != strips or len(counts) != strips:
        raise ValueError('the TIFF file does not have all of its strips; copy it again')
    for number, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
        least = max(1, row * min(rows, height - number * rows))
        if offset < 8 or count < least or offset + count > size:
            raise ValueError(_CUT)


# --- BMP ---------------------------------------------------------------------------------------


def _bmp(data: bytes) -> Layout:
    header = _little(data, 14, 4)
    width, height = _little(data, 18, 4), abs(int.from_bytes(data[22:26], 'little', signed=True))
    bits, compression = _little(data, 28, 2), _little(data, 30, 4)
    if header not in _BMP_HEADERS or bits not in (8, 24, 32) or compression:
        raise ValueError(f'a BMP file of a kind that is not read (compressed, few bits); {_SAVE}')
    stride = -(-width * bits // 32) * 4
    if _little(data, 10, 4) < 14 + header or _little(data, 10, 4) + stride * height > len(data):
        raise ValueError(_CUT)
    return Layout('BMP', height, width, data)


# --- WebP --------------------------------------------------------------------------------------


def _webp(data: bytes) -> Layout:
    end = 8 + _little(data, 4, 4)
    if end > len(data):
        raise ValueError(_CUT)
    shape, orientation, at = None, exif.UPRIGHT, 12
    while at + 8 <= end:
        name, length = data[at : at + 4], _little(data, at + 4, 4)
        if at + 8 + length > end:
            raise ValueError(_CUT)
        content = data[at + 8 : at + 8 + length]
        if name in (b'ANIM', b'ANMF'):
            raise Several('a WebP file of several frames, not one radiograph')
        if name == b'VP8X' and shape is None:
            shape = _little(content, 7, 3) + 1, _little(content, 4, 3) + 1
        elif name == b'VP8L' and shape is None:
            packed = _little(content, 1, 4)
            shape = (packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1
        elif name == b'VP8 ' and shape is None:
            shape = _little(content, 8, 2) & 0x3FFF, _little(content, 6, 2) & 0x3FFF
        elif name == b'EXIF':
            orientation = exif.of_tiff(content.removeprefix(b'Exif\0\0'))
        at += 8 + length + length % 2
    if shape is None:
        raise ValueError('the WebP file holds no image; copy it again')
    return Layout('WEBP', *shape, data[:end], orientation)


# --- JPEG 2000 ---------------------------------------------------------------------------------


def _jpeg2000(data: bytes) -> Layout:
    boxes = list(_boxes(data))
    parts = {name: content for name, content in boxes if name in (b'jp2h', b'jp2c')}
    whole = [name for name, _ in boxes[:2]] == [b'jP  ', b'ftyp'] and b'jp2h' in parts
    if not whole or sum(name == b'jp2c' for name, _ in boxes) != 1:
        raise ValueError('the JPEG 2000 file does not hold one image; copy it again')
    for name, content in _boxes(parts[b'jp2h']):
        space = int.from_bytes(content[3:7]) if content[:1] == b'\1' else _GREY_AND_RGB[0]
        if name in (b'pclr', b'cdef') or (name == b'colr' and space not in _GREY_AND_RGB):
            raise ValueError(f'a JPEG 2000 file with a palette or other colours; {_SAVE}')
    stream = parts[b'jp2c']
    height, width, channels, bits = codestreams.jpeg2000_header(stream)
    stated = dict(_boxes(parts[b'jp2h'])).get(b'ihdr', b'')
    if stated[:10] != height.to_bytes(4) + width.to_bytes(4) + channels.to_bytes(2):
        raise ValueError('the JPEG 2000 file states two sizes; copy it again')
    each = {stream[at : at + 3] for at in range(42, 42 + 3 * channels, 3)}
    if channels not in (1, 3) or not 8 <= bits <= 16 or each != {bytes([bits - 1, 1, 1])}:
        raise ValueError(f'a JPEG 2000 file of {channels} channels of {bits} bits; {_SAVE}')
    return Layout('JPEG2000', height, width, stream, channels=channels, bits=bits)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of each box."""
    at = 0
    while at + 8 <= len(data):
        length, start = int.from_bytes(data[at : at + 4]), at + 8
        if length == 1:
            length, start = int.from_bytes(data[at + 8 : at + 16]), at + 16
        end = at + length if length else len(data)
        if end < start or end > len(data):
            if data[at:].strip(b'\0'):
                raise ValueError(_CUT)
            return  # padding
        yield data[at + 4 : at + 8], data[start:end]
        at = end


def _little(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], 'little')
