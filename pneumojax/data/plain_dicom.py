"""The plainest DICOM file: 8-bit grey, JPEG Baseline, and nothing said about what its values mean.

SIIM's files are such. Taking one apart here costs a fifth of what pydicom's objects cost, and those
are a sixth of the way from a file to a record. Whatever is not exactly as expected is left to
pydicom: nothing is refused here, and no rule is relaxed.
"""

import re
import struct
from typing import NamedTuple

from pydicom import uid
from pydicom.tag import Tag

from pneumojax.data import display

_ELEMENT, _LENGTH, _ITEM = struct.Struct('<HH2sH'), struct.Struct('<I'), struct.Struct('<II')
# Value representations (PS3.5 7.1.2); after the long ones four more bytes say how long a value is.
_SHORT = frozenset(b'AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US'.split())
_LONG = frozenset(b'OB OW SQ UN UT'.split())
_FIRST, _PIXELS, _ROWS, _COLUMNS = map(
    Tag, ('FileMetaInformationGroupLength', 'PixelData', 'Rows', 'Columns')
)
# What must be there, and what may be: representation and value.
_REQUIRED = {
    Tag('TransferSyntaxUID'): b'UI' + uid.JPEGBaseline8Bit.encode(),
    Tag('SamplesPerPixel'): b'US\1\0',
    Tag('PhotometricInterpretation'): b'CSMONOCHROME2 ',
    Tag('BitsAllocated'): b'US\x08\0',
    Tag('BitsStored'): b'US\x08\0',
    Tag('PixelRepresentation'): b'US\0\0',
}
_ALLOWED = {
    Tag('SpecificCharacterSet'): re.compile(rb'CSISO_IR (100|192)'),
    Tag('NumberOfFrames'): re.compile(rb'IS1 '),
    **{  # twice the same positive number: the pixels are square
        Tag(keyword): re.compile(rb'DS([1-9]\d{0,3}(\.\d{1,20})?|0\.0{0,9}[1-9]\d{0,20})\\\1 ?')
        for keyword in ('PixelSpacing', 'ImagerPixelSpacing', 'NominalScannedPixelSpacing')
    },
}
_FORBIDDEN = {*display.TAGS, Tag('PixelAspectRatio')}
_ITEM_STARTS, _ALL_ENDS = 0xE000FFFE, b'\xfe\xff\xdd\xe0\0\0\0\0'
_UNDEFINED = 0xFFFFFFFF


class Plain(NamedTuple):
    """All that there is to know of such a file; its pixels are square."""

    rows: int
    columns: int
    frame: bytes  # the JPEG stream


def take_apart(data: bytes) -> Plain | None:
    """Takes a file apart, given whole; None where it is not plain, or not sound."""
    if data[128:132] != b'DICM':
        return None
    try:
        tags, at = _header(data)
        sound = (
            tags[_FIRST].startswith(b'UL')
            and len(tags[_FIRST]) == 6
            and all(tags[tag] == value for tag, value in _REQUIRED.items())
            and all(form.fullmatch(tags[tag]) for tag, form in _ALLOWED.items() if tag in tags)
            and tags.keys().isdisjoint(_FORBIDDEN)
        )
        rows, columns = _number(tags[_ROWS]), _number(tags[_COLUMNS])
        frame = _only_frame(data, at)
    except (struct.error, LookupError):  # it ends too early, or lacks something
        return None
    return Plain(rows, columns, frame) if sound and rows and columns else None


def _header(data: bytes) -> tuple[dict[int, bytes], int]:
    """Representation and value of each tag before the pixels, in order, and where these start."""
    tags, last, at = {}, _FIRST - 1, 132
    while True:
        group, element, kind, length = _ELEMENT.unpack_from(data, at)
        at += 8
        if kind in _LONG:
            length = _LENGTH.unpack_from(data, at)[0]
            at += 4
        elif kind not in _SHORT:
            raise LookupError
        tag = group << 16 | element
        if tag <= last:
            raise LookupError
        if tag >= _PIXELS:
            if tag == _PIXELS and kind == b'OB' and length == _UNDEFINED:
                return tags, at
            raise LookupError
        tags[tag] = kind + data[at : at + length]
        at += length
        last = tag


def _number(value: bytes) -> int:
    """Of representation US."""
    if len(value) != 4 or not value.startswith(b'US'):
        raise LookupError
    return int.from_bytes(value[2:], 'little')


def _only_frame(data: bytes, at: int) -> bytes:
    """The one fragment behind a table of offsets, which is empty or says 0, at the file's end."""
    starts, length = _ITEM.unpack_from(data, at)
    table = data[at + 8 : at + 8 + length] if length <= 4 else None
    if starts != _ITEM_STARTS or table not in (b'', b'\0\0\0\0'):
        raise LookupError
    at += 8 + length
    starts, length = _ITEM.unpack_from(data, at)
    end = at + 8 + length
    if starts != _ITEM_STARTS or data[end:] != _ALL_ENDS:
        raise LookupError
    return data[at + 8 : end]
