"""The plainest DICOM file: 8-bit grey, JPEG Baseline, and nothing said about what its values mean.

SIIM's files are such. pydicom's reader takes their elements apart, which stay as they are: few have
to be known, none converted, and those conversions cost a tenth of the way from a file to a record.
Whatever is not exactly as expected goes the ordinary way: nothing is refused here, and no rule is
relaxed.
"""

import io
import re
import struct
from typing import NamedTuple

from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.filereader import data_element_generator
from pydicom.tag import Tag
from pydicom.valuerep import STANDARD_VR

from pneumojax.data.files import display

_FIRST, _ROWS, _COLUMNS = (
    int(Tag(keyword)) for keyword in ('FileMetaInformationGroupLength', 'Rows', 'Columns')
)
# What must be there, and what may be: value representation and value.
_REQUIRED = {
    Tag('TransferSyntaxUID'): ('UI', uid.JPEGBaseline8Bit.encode()),
    Tag('SamplesPerPixel'): ('US', b'\1\0'),
    Tag('PhotometricInterpretation'): ('CS', b'MONOCHROME2 '),
    Tag('BitsAllocated'): ('US', b'\x08\0'),
    Tag('BitsStored'): ('US', b'\x08\0'),
    Tag('PixelRepresentation'): ('US', b'\0\0'),
}
_ALLOWED = {
    Tag('SpecificCharacterSet'): ('CS', re.compile(rb'ISO_IR (100|192)')),
    Tag('NumberOfFrames'): ('IS', re.compile(rb'1 ')),
    **{  # twice the same positive number: the pixels are square
        Tag(keyword): (
            'DS',
            re.compile(rb'([1-9]\d{0,3}(\.\d{1,20})?|0\.0{0,9}[1-9]\d{0,20})\\\1 ?'),
        )
        for keyword in ('PixelSpacing', 'ImagerPixelSpacing', 'NominalScannedPixelSpacing')
    },
}
_FORBIDDEN = {*display.TAGS, Tag('PixelAspectRatio')}
_START = 132  # of the elements
# The element PixelData, of representation OB and undefined length; an item, with its length; the
# end of all items, and of the file.
_PIXELS = b'\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff'
_ITEM, _ITEM_TAG, _END = struct.Struct('<II'), 0xE000FFFE, b'\xfe\xff\xdd\xe0\0\0\0\0'


class Plain(NamedTuple):
    """All that there is to know of such a file; its pixels are square."""

    rows: int
    columns: int
    frame: bytes  # the JPEG stream


def take_apart(data: bytes) -> Plain | None:
    """Takes a file apart.

    Args:
      data: the whole file, of DICOM PS3.10.

    Returns:
      None where it is not plain or not sound. What is inside the frame is not looked at.
    """
    if data[_START - 4 : _START] != b'DICM':
        return None
    try:
        pixels = data.index(_PIXELS)
        elements = _elements(data[_START:pixels])
        sound = (
            all(elements[tag] == expected for tag, expected in _REQUIRED.items())
            and all(
                elements[tag][0] == kind and form.fullmatch(elements[tag][1])
                for tag, (kind, form) in _ALLOWED.items()
                if tag in elements
            )
            and elements.keys().isdisjoint(_FORBIDDEN)
        )
        rows, columns = _number(elements[_ROWS]), _number(elements[_COLUMNS])
        frame = _only_frame(data, pixels + len(_PIXELS))
    except Exception:  # of many kinds: the ordinary way says what is wrong
        return None
    return Plain(rows, columns, frame) if sound and rows and columns else None


def _elements(header: bytes) -> dict[int, tuple[str, bytes]]:
    """Representation and value of every element by its tag.

    Raises:
      LookupError: they are not whole or not in order, or the first is not what it must be.
    """
    elements, last, end = {}, _FIRST - 1, 0
    file = io.BytesIO(header)
    for element in data_element_generator(file, is_implicit_VR=False, is_little_endian=True):
        if not isinstance(element, RawDataElement):
            raise LookupError
        tag, kind, value = int(element.tag), element.VR, element.value or b''
        if tag <= last or kind not in STANDARD_VR or len(value) != element.length:
            raise LookupError
        elements[tag] = kind, value
        last, end = tag, element.value_tell + len(value)
    first, length = elements[_FIRST]
    if end != len(header) or first != 'UL' or len(length) != 4:
        raise LookupError
    return elements


def _number(element: tuple[str, bytes]) -> int:
    """Of representation US."""
    kind, value = element
    if kind != 'US' or len(value) != 2:
        raise LookupError
    return int.from_bytes(value, 'little')


def _only_frame(data: bytes, at: int) -> bytes:
    """The one fragment behind a table of offsets, which is empty or says 0, at the file's end."""
    tag, length = _ITEM.unpack_from(data, at)
    start = at + _ITEM.size + length
    if tag != _ITEM_TAG or data[at + _ITEM.size : start] not in (b'', b'\0\0\0\0'):
        raise LookupError
    tag, length = _ITEM.unpack_from(data, start)
    start += _ITEM.size
    if tag != _ITEM_TAG or data[start + length :] != _END:
        raise LookupError
    return data[start : start + length]
