"""Reads the tags that say how stored values become display values.

All of them are optional. One that makes no sense does not cost the file: it is ignored, and a note
says so. A note names the tag and never quotes its value, as a value in the wrong tag may be a name.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
import pydicom
from pydicom.multival import MultiValue

from pneumojax.data.files import headers

KEYWORDS = (
    'HighBit', 'ModalityLUTSequence', 'RescaleSlope', 'RescaleIntercept', 'VOILUTSequence',
    'VOILUTFunction', 'WindowCenter', 'WindowWidth', 'PresentationLUTShape', 'PixelPaddingValue',
    'PixelPaddingRangeLimit',
)  # fmt: skip
T = TypeVar('T')


class Table(NamedTuple):
    """An item of a LUT sequence (PS3.3 C.11.1.1.1)."""

    entries: np.ndarray  # unsigned integers
    first: int  # the input of the first entry
    bits: int  # of the entries


class Rescale(NamedTuple):
    """A linear modality transformation."""

    slope: float
    intercept: float


class Window(NamedTuple):
    """A VOI window (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""

    center: float
    width: float
    function: str  # LINEAR, LINEAR_EXACT or SIGMOID


class Display(NamedTuple):
    """How the stored values of a file become display values."""

    bits: int  # of a stored value, including its sign
    signed: bool
    inverted: bool  # MONOCHROME1
    modality: Table | Rescale | None = None
    voi: Table | Window | None = None
    padding: tuple[int, int] | None = None  # the values from .. to are no part of the image

    @property
    def ends(self) -> tuple[int, int]:
        """The smallest and the largest stored value that is possible."""
        lowest = -(1 << self.bits - 1) if self.signed else 0
        return lowest, lowest + (1 << self.bits) - 1


class Senseless(ValueError):
    """The value of a tag makes no sense; the message, if any, is the note to give."""


def read(dataset: pydicom.Dataset, bits: int) -> tuple[Display, tuple[str, ...]]:
    """Reads the tags of a grey image.

    Args:
      dataset: its tags. PhotometricInterpretation and PixelRepresentation must be valid.
      bits: of a stored value, according to the tags or the compressed stream.

    Returns:
      The transformation; and notes on tags that were ignored or contradict each other.
    """
    notes: list[str] = []

    def ask(name: str, parse: Callable[..., T | None], *arguments: object) -> T | None:
        try:
            return parse(dataset, *arguments)
        except MemoryError:
            raise
        # Python and pydicom raise many types where a value has another type or form than expected.
        except Exception as error:
            note = str(error) if isinstance(error, Senseless) else ''
            notes.append(note or f'{name} makes no sense and is ignored')
            return None

    inverted = headers.photometric(dataset) == 'MONOCHROME1'
    display = Display(bits, bool(dataset.PixelRepresentation), inverted)
    keyword = 'ModalityLUTSequence'
    modality: Table | Rescale | None = ask(keyword, _lookup, keyword, display.signed, notes)
    if modality is None:
        modality = ask('the rescale', _rescale, display)
    # Inputs are signed where the step before may give negative values, whatever the descriptor's
    # VR (PS3.3 C.11.2.1.1), which readers of Implicit VR can only guess.
    keyword, signed = 'VOILUTSequence', _may_be_negative(modality, display)
    voi: Table | Window | None = ask(keyword, _lookup, keyword, signed, notes)
    if voi is None:
        voi = ask('the window', _window, ask('VOILUTFunction', _function, notes))
    padding = None
    keyword, limit = 'PixelPaddingValue', 'PixelPaddingRangeLimit'
    if (first := ask(keyword, _padding, keyword)) is not None:
        last = ask(limit, _padding, limit)
        padding = (first, first) if last is None else (min(first, last), max(first, last))
    shape = ask('PresentationLUTShape', _text, 'PresentationLUTShape')
    if shape in ('IDENTITY', 'INVERSE') and (shape == 'INVERSE') != inverted:
        notes.append(
            'PresentationLUTShape contradicts PhotometricInterpretation, which is followed: some '
            'viewers swap black and white'
        )
    return display._replace(modality=modality, voi=voi, padding=padding), tuple(notes)


def table(
    item: pydicom.Dataset, descriptor: str, data: str, *, little: bool, signed: bool
) -> tuple[Table, bool]:
    """Reads a table; one that lacks its last entry is completed.

    Args:
      item: the data set that holds it.
      descriptor, data: the keywords of its two tags.
      little: whether the words of the data are little endian.
      signed: whether its inputs may be negative.

    Returns:
      The table, and whether it was complete.

    Raises:
      Exception: there is no such table, or it is too short.
    """
    # Each number is a word, of which the reader may have taken the wrong sign.
    count, first, bits = (int(value) & 0xFFFF for value in item[descriptor].value)
    count = count or 1 << 16  # which does not fit into the word
    value = item[data].value
    if isinstance(value, bytes):
        words = np.frombuffer(value + b'\0' * (len(value) % 2), '<u2' if little else '>u2')
    else:
        words = np.array([int(entry) & 0xFFFF for entry in np.atleast_1d(value)])
    entries = words.astype('<u2')
    if bits <= 8 and len(words) == (count + 1) // 2 < count:
        entries = entries.view('u1')  # two of them in a word
    if len(entries) < max(count - 1, 1):
        raise Senseless
    # A table counted by its last index lacks one entry, which is close to the one before it.
    complete = len(entries) >= count
    entries = entries[:count] if complete else np.append(entries, entries[-1:])
    return Table(entries, _sixteen_bits(first, signed), bits), complete


def _lookup(dataset: pydicom.Dataset, keyword: str, signed: bool, notes: list[str]) -> Table | None:
    items = dataset.get(keyword)
    if not items:
        return None
    little = dataset.file_meta.TransferSyntaxUID.is_little_endian
    found, complete = table(items[0], 'LUTDescriptor', 'LUTData', little=little, signed=signed)
    if not complete:
        notes.append(f'the table of {keyword} is one entry short: its last entry is repeated')
    needed = int(found.entries.max()).bit_length()
    if keyword == 'VOILUTSequence' and not max(needed, 1) <= found.bits <= 16:
        notes.append(f'the table of {keyword} does not have the bits that it states')
        found = found._replace(bits=max(needed, 1))
    return found


def _rescale(dataset: pydicom.Dataset, display: Display) -> Rescale | None:
    slope, intercept = _number(dataset, 'RescaleSlope'), _number(dataset, 'RescaleIntercept')
    if slope is None and intercept is None:
        return None
    if slope == 0:
        raise Senseless('RescaleSlope is 0: the rescale is ignored')
    found = Rescale(1.0 if slope is None else slope, intercept or 0.0)
    low, high = (end * found.slope + found.intercept for end in display.ends)
    if not math.isfinite(high - low):
        raise Senseless
    return found


def _may_be_negative(modality: Table | Rescale | None, display: Display) -> bool:
    if isinstance(modality, Rescale):
        return min(end * modality.slope + modality.intercept for end in display.ends) < 0
    return display.signed and modality is None


def _window(dataset: pydicom.Dataset, function: str | None) -> Window | None:
    center, width = (_number(dataset, f'Window{part}', 1) for part in ('Center', 'Width'))
    if center is None and width is None:
        return None
    function = function or 'LINEAR'
    # Files with widths that the standard forbids exist.
    if center is None or width is None or width <= 0 or (width < 1 and function == 'LINEAR'):
        raise Senseless
    return Window(center, width, function)


def _function(dataset: pydicom.Dataset, notes: list[str]) -> str | None:
    value = dataset.get('VOILUTFunction')
    if isinstance(value, MultiValue):  # makers repeat it for each of several windows
        notes.append('VOILUTFunction has several values: the first is used')
        value = value[0] if value else None
    function = str(value or '').strip().upper()
    if function not in ('', 'LINEAR', 'LINEAR_EXACT', 'SIGMOID'):
        raise Senseless
    return function or None


def _padding(dataset: pydicom.Dataset, keyword: str) -> int | None:
    value = dataset.get(keyword)
    if value is None or value == '':
        return None
    # It has the type of the pixels (PS3.3 C.7.5.1.1.2), but some makers state it as the other one.
    signed = bool(dataset.PixelRepresentation)
    if -(1 << 15) <= value < 1 << 16:
        return _sixteen_bits(int(value), signed)
    if dataset.BitsAllocated <= 16:
        raise Senseless
    return int(value)


def _number(dataset: pydicom.Dataset, keyword: str, windows: int = 0) -> float | None:
    """One number; None without any. Of `windows`, a file may offer several: the first counts."""
    value = dataset.get(keyword)
    if isinstance(value, MultiValue) and (windows or not value):
        value = value[0] if value else None
    if value is None or value == '':
        return None
    number = float(value)
    if not math.isfinite(number):
        raise Senseless
    return number


def _text(dataset: pydicom.Dataset, keyword: str) -> str:
    return headers.text(dataset, keyword).upper()


def _sixteen_bits(value: int, signed: bool) -> int:
    value &= 0xFFFF
    return value - (1 << 16) if signed and value >= 1 << 15 else value
