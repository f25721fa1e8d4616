"""The plainest DICOM file: 8-bit grey, JPEG Baseline, and nothing said about what its values mean.

SIIM's files are such. pydicom's reader takes them apart, but what it read stays as it is: of a few
known values none has to be converted, and those conversions cost as much as a sixth of the way from
a file to a record. Whatever is not exactly as expected goes the ordinary way: nothing is refused
here, and no rule is relaxed.
"""

import io
import re
from typing import NamedTuple

from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.encaps import get_frame
from pydicom.filereader import data_element_generator
from pydicom.tag import Tag
from pydicom.valuerep import STANDARD_VR

from pneumojax.data import display

_FIRST, _PIXELS, _ROWS, _COLUMNS = (
    int(Tag(keyword))
    for keyword in ('FileMetaInformationGroupLength', 'PixelData', 'Rows', 'Columns')
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
_START, _UNDEFINED = 132, 0xFFFFFFFF
_END = b'\xfe\xff\xdd\xe0\0\0\0\0'  # of the pixel data, and the file's


class Plain(NamedTuple):
    """All that there is to know of such a file; its pixels are square."""

    rows: int
    columns: int
    frame: bytes  # the JPEG stream


def take_apart(data: bytes) -> Plain | None:
    """Takes a file apart, given whole; None where it is not plain, or not sound."""
    if data[_START - 4 : _START] != b'DICM':
        return None
    try:
        elements, end = _elements(data)
        sound = (
            all(elements[tag] == expected for tag, expected in _REQUIRED.items())
            and all(
                elements[tag][0] == kind and form.fullmatch(elements[tag][1])
                for tag, (kind, form) in _ALLOWED.items()
                if tag in elements
            )
            and elements.keys().isdisjoint(_FORBIDDEN)
            and data[end:] == _END
        )
        rows, columns = _number(elements[_ROWS]), _number(elements[_COLUMNS])
        frame = _only_frame(elements[_PIXELS])
    except Exception:  # of many kinds: the ordinary way says what is wrong
        return None
    return Plain(rows, columns, frame) if sound and rows and columns else None


def _elements(data: bytes) -> tuple[dict[int, tuple[str, bytes]], int]:
    """Representation and value of every element by its tag, and where the last value ends.

    Raises:
      LookupError: not all are whole and in order, or the first or last is not what it must be.
    """
    file = io.BytesIO(data)
    file.seek(_START)
    elements, last, end = {}, _FIRST - 1, 0
    for element in data_element_generator(file, is_implicit_VR=False, is_little_endian=True):
        if not isinstance(element, RawDataElement):
            raise LookupError
        tag, kind, value = int(element.tag), element.VR, element.value or b''
        whole = element.length == (len(value) if tag != _PIXELS else _UNDEFINED)
        if tag <= last or kind not in STANDARD_VR or not whole:
            raise LookupError
        elements[tag] = kind, value
        last, end = tag, element.value_tell + len(value)
    first, length = elements[_FIRST]
    if last != _PIXELS or first != 'UL' or len(length) != 4:
        raise LookupError
    return elements, end


def _number(element: tuple[str, bytes]) -> int:
    """Of representation US."""
    kind, value = element
    if kind != 'US' or len(value) != 2:
        raise LookupError
    return int.from_bytes(value, 'little')


def _only_frame(pixels: tuple[str, bytes]) -> bytes:
    """The one fragment behind a table of offsets, which is empty or says 0."""
    kind, value = pixels
    table = int.from_bytes(value[4:8], 'little')
    frame = get_frame(value, 0, number_of_frames=1)
    # The table and each fragment begin with 8 bytes: more would be another fragment's.
    alone = len(value) == 8 + table + 8 + len(frame)
    if kind != 'OB' or not alone or value[8 : 8 + table] not in (b'', b'\0\0\0\0'):
        raise LookupError
    return frame
