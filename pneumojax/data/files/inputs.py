"""Any file in: a radiograph out, or the reason why not. Files are known by content, not by name.

What is no projection radiograph (DICOMDIR, reports, CT slices, colour, several frames, other files)
is `Skipped`; what claims to be one and cannot be read is `Unreadable`.
"""

import hashlib
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import numpy as np
import pydicom

from pneumojax.data.files import dicom, headers, picture_files
from pneumojax.errors import UsageError

NAMED_DICOM = ('.dcm', '.dicom', '.dic', '.ima')
_SUFFIXES = (*NAMED_DICOM, '.png', '.jpg', '.jpeg')
_LONGEST = 120  # bytes of a name: suffixes and the 255 of file systems are far


class Skipped(ValueError):
    """Not a projection radiograph; the message says what it is, without the path."""


class Unreadable(ValueError):
    """A damaged or unusual file; the message says why, without the path."""


class Radiograph(NamedTuple):
    """One image as it will be predicted and marked."""

    image: np.ndarray  # uint8 [H, W], MONOCHROME2 sense
    spacing: tuple[float, float] | None  # millimetres from row to row and from column to column
    aspect: float  # height of a pixel over its width
    notes: tuple[str, ...]  # what a reader of the result should know
    header: pydicom.Dataset | None  # `headers.KEPT` of a DICOM file; None for PNG and JPEG


def find(
    source: str | os.PathLike, leave_out: str | os.PathLike | None = None, key: str = '--input'
) -> list[str]:
    """Lists a file, or all files below a folder in an order that depends on their names alone.

    Args:
      source: file or folder; links to folders are followed, each folder is entered once.
      leave_out: folder that is not entered (the output's).
      key: what named the source, for errors.

    Returns:
      Paths relative to the folder; of a single file its name.

    Raises:
      UsageError: nothing there.
    """
    source = os.fspath(source)
    if not os.path.isdir(source):
        if not os.path.lexists(source):
            raise UsageError(f'{key}: there is no file or folder {source!r}; check the path')
        return [os.path.basename(source)]
    avoid = os.path.realpath(leave_out) if leave_out is not None else None
    found, seen = [], set()

    def refuse(error):
        raise UsageError(f'{key}: {error.filename} cannot be listed: {error.strerror}')

    for folder, folders, names in os.walk(source, followlinks=True, onerror=refuse):
        real = os.path.realpath(folder)
        if real in seen or real == avoid:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        found += [os.path.relpath(os.path.join(folder, name), source) for name in sorted(names)]
    if not found:
        raise UsageError(f'{key}: the folder {source!r} holds no files; give one that does')
    return found


def image_ids(files: Iterable[str], known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Names for what is written about each file: its stem, made safe and unique.

    Args:
      files: paths; the stem drops a known suffix, so `1.2.840` keeps its last number.
      known: names given earlier, which stay.

    Returns:
      {file: name}. Names hold letters, digits, `-`, `_` and `.`, do not start with a dot, and
      differ even where upper and lower case are the same. A second `a.dcm` becomes `a-2`.
    """
    known = known or {}
    taken = {_folded(name) for name in known.values()}
    given = {}
    for file in files:
        if file in known:
            given[file] = known[file]
            continue
        base = name = _safe(stem(file))
        count = 1
        while _folded(name) in taken:
            count += 1
            name = f'{base}-{count}'
        taken.add(_folded(name))
        given[file] = name
    return given


def is_safe(name) -> bool:
    """Whether a name is such as `image_ids` gives: a file of that name lies where it is put."""
    return isinstance(name, str) and re.fullmatch(r'\w[\w.-]{0,199}', name) is not None


def name_note(file: str, name: str) -> str | None:
    """Why outputs of a file are not named as it is, where they are not."""
    safe = _safe(stem(file))
    if name != safe:
        return f'another input is named {safe} too'
    return None if name == stem(file) else 'named without the characters that file names forbid'


def stem(file: str) -> str:
    """The file's name without folders and without the suffix of an image."""
    name = os.path.basename(file)
    root, suffix = os.path.splitext(name)
    return root if suffix.lower() in _SUFFIXES and root else name


def printable(text: str) -> str:
    """The text with bytes that are no UTF-8 (possible in file names) written as escapes."""
    return os.fsencode(text).decode('utf-8', 'backslashreplace')


def read(path: str | os.PathLike, *, max_pixels: int = dicom.MAX_PIXELS) -> Radiograph:
    """Reads one file of any kind.

    Args:
      path: the file.
      max_pixels: refuse images that claim more, before any memory is taken.

    Raises:
      Skipped: it is something else than a grey single-frame projection radiograph.
      Unreadable: it should be one, but cannot be read.
    """
    head = _head(path)
    if head[128:132] == b'DICM':
        return _read_dicom(path, max_pixels)
    if head.startswith((picture_files.PNG, picture_files.JPEG)):
        return _read_picture(path, max_pixels)
    if os.fspath(path).lower().endswith(NAMED_DICOM) or _bare_dicom(head):
        raise Unreadable(
            'not a DICOM file (no "DICM" at byte 128); export it as DICOM Part 10'
            if head
            else 'the file is empty; copy it again'
        )
    raise Skipped('not a DICOM, PNG or JPEG file' if head else 'an empty file')


def kind(path: str | os.PathLike) -> Literal['dicom', 'picture', '']:
    """What a file is by its first bytes; '' for anything else, and where it cannot be opened."""
    try:
        head = _head(path)
    except (Skipped, Unreadable):
        return ''
    if head[128:132] == b'DICM':
        return 'dicom'
    return 'picture' if head.startswith((picture_files.PNG, picture_files.JPEG)) else ''


def _head(path) -> bytes:
    try:
        # Opening a named pipe would wait for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Skipped('not a regular file')
        with open(path, 'rb') as file:
            return file.read(132)
    except FileNotFoundError:
        raise Unreadable('a link to a file that is not there') from None
    except OSError as error:
        raise Unreadable(f'cannot be opened: {error.strerror}') from None


def _read_dicom(path, max_pixels) -> Radiograph:
    try:
        dicom.check_file(path)
        header = headers.read(path)
        other = headers.other_kind(header)
        spacing, aspect, notes = (
            headers.spacing(header),
            headers.aspect(header),
            headers.notes(header),
        )
    except dicom.DicomError as error:
        raise Unreadable(str(error)) from None
    # Foreign input: whatever pydicom raises means that the file is damaged. Its messages may quote
    # the file, which names a patient, so only the type is passed on.
    except Exception as error:
        raise Unreadable(
            f'damaged or unusual DICOM header ({type(error).__name__}); export the image again'
        ) from error
    if other:
        raise Skipped(other)
    if header.get('Rows') is None and not headers.kind(header):
        raise Unreadable('names no kind of object and holds no image; copy the file again')
    try:
        image = dicom.to_uint8(dicom.read(path, max_pixels=max_pixels))
    except dicom.DicomError as error:
        raise Unreadable(str(error).removeprefix(f'{path}: ')) from error
    except MemoryError:
        raise Unreadable('needs more memory than there is; downsample the image first') from None
    return Radiograph(image, spacing, aspect, notes, header)


def _read_picture(path, max_pixels) -> Radiograph:
    try:
        image = picture_files.read(path, max_pixels=max_pixels)
    except picture_files.Colour as error:
        raise Skipped(str(error)) from None
    except ValueError as error:
        raise Unreadable(str(error)) from None
    notes = ('no DICOM file: no SEG, and no area in mm²',)
    return Radiograph(image, None, 1.0, notes, None)


def _bare_dicom(head: bytes) -> bool:
    """Whether the bytes look like a DICOM data set that lacks its file header."""
    return head[:2] in (b'\x02\0', b'\x08\0', b'\0\x08') and (
        head[4:6].isalpha() and head[4:6].isupper()
    )


def _safe(text: str) -> str:
    text = unicodedata.normalize('NFC', printable(text))
    safe = re.sub(r'[^\w.-]', '_', text).lstrip('.-') or 'image'
    if len(safe.encode()) <= _LONGEST:
        return safe
    mark = hashlib.sha256(text.encode()).hexdigest()[:12]
    return safe.encode()[: _LONGEST - 13].decode(errors='ignore') + '-' + mark


def _folded(name: str) -> str:
    return unicodedata.normalize('NFC', name).casefold()
