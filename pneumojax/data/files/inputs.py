"""Reads a radiograph from any file, or says why there is none. The content decides, not the name.

A file that is not a projection radiograph (DICOMDIR, report, CT slice, colour, several frames, any
other file) is `Skipped`; one that should be, but cannot be read, is `Unreadable`.
"""

import contextlib
import hashlib
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np
import pydicom

from pneumojax.data.files import bare, chest, dicom, exif, headers, picture_files
from pneumojax.errors import UsageError
from pneumojax.system import limits
from pneumojax.system.progress import log

FileType = Literal['dicom', 'picture', '']

NAMED_DICOM = ('.dcm', '.dicom', '.dic', '.ima')
_SUFFIXES = (
    *NAMED_DICOM, '.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp', '.webp', '.jp2',
)  # fmt: skip
_SYSTEM_FILES = ('.ds_store', '.localized', 'thumbs.db', 'ehthumbs.db', 'desktop.ini')
_HEAD = bare.BYTES  # at the start, which tell the type of a file
_LONGEST = 120  # bytes of a name, which leaves room for suffixes within the usual limit of 255


class Skipped(ValueError):
    """Not a projection radiograph; the message says what the file is, without its path."""


class Unreadable(ValueError):
    """A damaged or unusual file; the message says why, without its path."""


class Radiograph(NamedTuple):
    """One image to predict on, and what the file says about it."""

    image: np.ndarray  # uint8 [H, W], MONOCHROME2 sense
    spacing: tuple[float, float] | None  # millimetres between rows and between columns
    aspect: float  # height of a pixel over its width
    notes: tuple[str, ...]  # what a reader of the result should know
    header: pydicom.Dataset | None  # `headers.KEPT` of a DICOM file; None for pictures


def find(
    source: str | os.PathLike, leave_out: str | os.PathLike | None = None, key: str = '--input'
) -> list[str]:
    """Lists a file, or all files below a folder in an order that depends only on their names.

    Args:
      source: file or folder; links to folders are followed, each folder is entered once.
      leave_out: folder to leave out (the one for the output).
      key: flag or config key that named the source, for errors.

    Returns:
      Paths relative to the folder; for a single file its name. Folders below it that cannot be
      listed are among them, after a warning; `read` says why.

    Raises:
      UsageError: there is no such file or folder, it cannot be listed, or it holds no files.
    """
    source = os.fspath(source)
    if not os.path.isdir(source):
        if not os.path.lexists(source):
            raise UsageError(f'{key}: there is no file or folder {source!r}; check the path')
        return [os.path.basename(source)]
    avoid = os.path.realpath(leave_out) if leave_out is not None else None
    found, seen = [], set()
    unlisted = Unlisted(source, key)
    for folder, folders, names in os.walk(source, followlinks=True, onerror=unlisted.add):
        real = os.path.realpath(folder)
        if real in seen or real == avoid:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        found += [os.path.relpath(os.path.join(folder, name), source) for name in sorted(names)]
    unlisted.warn()
    found += [os.path.relpath(folder, source) for folder in unlisted.folders]
    if not found:
        raise UsageError(f'{key}: the folder {source!r} holds no files')
    return found


class Unlisted:
    """Folders that a walk could not list: each costs what is in it, and not the run.

    Args:
      root: where the walk starts, which has to be listed.
      key: flag or config key that named the root, for errors.
    """

    def __init__(self, root: str, key: str):
        self.folders: list[str] = []
        self._root, self._key, self._first = root, key, ''

    def add(self, error: OSError) -> None:
        """For `os.walk(onerror=...)`. Raises UsageError if it is the root."""
        why = f'{printable(error.filename)} cannot be listed: {error.strerror}'
        if error.filename == self._root:
            raise UsageError(f'{self._key}: {why}')
        self._first = self._first or why
        self.folders.append(error.filename)

    def warn(self) -> None:
        """Logs how many folders there were."""
        if self.folders:
            log.warning('%d folders are left out; the first is %s', len(self.folders), self._first)


def image_ids(files: Iterable[str], known: Mapping[str, str] | None = None) -> dict[str, str]:
    """Names the outputs of each file: its stem, made safe and unique.

    Args:
      files: paths; only suffixes of images are dropped, so `1.2.840` keeps its last number.
      known: names given earlier, which are kept.

    Returns:
      {file: name}. Names consist of letters, digits, `-`, `_` and `.`, do not start with a dot,
      and differ even where case is ignored. A second `a.dcm` becomes `a-2`.
    """
    known = known or {}
    taken = {_folded(name) for name in known.values()}
    counts: dict[str, int] = {}  # tried last; all below are taken
    given = {}
    for file in files:
        if file in known:
            given[file] = known[file]
            continue
        base = name = _safe(stem(file))
        count = counts.get(_folded(base), 1)
        while _folded(name) in taken:
            count += 1
            name = f'{base}-{count}'
        counts[_folded(base)] = count
        taken.add(_folded(name))
        given[file] = name
    return given


def is_safe(name: object) -> bool:
    """Whether a name could come from `image_ids`, so that no path made of it leaves its folder."""
    return isinstance(name, str) and re.fullmatch(r'\w[\w.-]{0,199}', name) is not None


def name_note(file: str, name: str) -> str | None:
    """Why the outputs of a file do not have its stem as their name; None if they do."""
    safe = _safe(stem(file))
    if name != safe:
        return f'another input is also named {safe}'
    return None if name == stem(file) else 'named without characters that file names forbid'


def stem(file: str) -> str:
    """The name of a file without its folders and without the suffix of an image.

    It is text in one form (NFC) that can be printed, as disks and tables differ in how they write
    accents: macOS in two characters (NFD), most others in one. Bytes that are no UTF-8 are escaped.
    """
    name = unicodedata.normalize('NFC', printable(os.path.basename(file)))
    root, suffix = os.path.splitext(name)
    return root if suffix.lower() in _SUFFIXES and root else name


def printable(text: str) -> str:
    """The text with bytes that are not UTF-8 (possible in file names) written as escapes.

    In a locale without UTF-8, Python passes on all that is not ASCII as such bytes.
    """
    return text.encode('utf-8', 'surrogateescape').decode('utf-8', 'backslashreplace')


def read(
    path: str | os.PathLike,
    *,
    accept: chest.Accept = 'chest',
    max_pixels: int = dicom.MAX_PIXELS,
) -> Radiograph:
    """Reads one file of any kind. A DICOM file is opened once, and nothing is read from it later.

    Args:
      path: the file.
      accept: 'chest' skips what is no frontal chest radiograph by its tags, see `chest.why_not`;
        'any' reads it, with a note.
      max_pixels: images that claim more pixels are refused before any memory is allocated.

    Raises:
      Skipped: it is not a grey single-frame projection radiograph, or not accepted.
      Unreadable: it should be one, but cannot be read.
    """
    with _open(path) as file:
        head = file.read(_HEAD)
        file_type = _type(head)
        if file_type == 'dicom':
            file.seek(0)
            return _read_dicom(file, accept, max_pixels)
    if file_type == 'picture':
        return _read_picture(path, max_pixels)
    if is_system_file(path):
        raise Skipped('a file of the operating system, not an image')
    if os.fspath(path).lower().endswith(NAMED_DICOM) or _bare_dicom(head):
        raise Unreadable(
            'not a DICOM file (no "DICM" at byte 128); export it as DICOM Part 10'
            if head
            else 'the file is empty; copy it again'
        )
    raise Skipped(
        'not a DICOM, PNG, JPEG, TIFF, BMP, WebP or JPEG 2000 file' if head else 'an empty file'
    )


def is_system_file(path: str | os.PathLike) -> bool:
    """Whether an operating system put the file there, going by its name.

    macOS adds a `._NAME` for each file on disks and in archives of other systems (AppleDouble).
    """
    name = os.path.basename(path)
    return name.startswith('._') or name.lower() in _SYSTEM_FILES


def file_type(path: str | os.PathLike) -> FileType:
    """The type of a file by its first bytes; '' for any other, or if it cannot be opened."""
    try:
        with _open(path) as file:
            return _type(file.read(_HEAD))
    except (Skipped, Unreadable):
        return ''


@contextlib.contextmanager
def _open(path: str | os.PathLike) -> Iterator[limits.BoundedFile]:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            os.listdir(path)  # `find` lists only folders for which this fails
        if not stat.S_ISREG(mode):
            raise Skipped('not a regular file')
        with limits.BoundedFile(path) as file:
            yield file
    except FileNotFoundError:
        raise Unreadable('a link to a file that does not exist') from None
    except OSError as error:
        raise Unreadable(f'cannot be read: {error.strerror}') from None


def _type(head: bytes) -> FileType:
    if head[128:132] == b'DICM' or bare.is_data_set(head):
        return 'dicom'
    return 'picture' if picture_files.is_picture(head) else ''


def _read_dicom(file: limits.BoundedFile, accept: chest.Accept, max_pixels: int) -> Radiograph:
    try:
        dicom.check(file)
        header = headers.read(file)
        reason = headers.why_not_radiograph(header)
        if accept == 'chest':
            reason = reason or chest.why_not(header)
        spacing, aspect = headers.spacing(header), headers.aspect(header)
        notes = chest.notes(header) + headers.notes(header)
    except dicom.DicomError as error:
        raise Unreadable(str(error)) from None
    # Any exception of pydicom's means that the file is damaged. Its messages may quote the file,
    # which names a patient, so only the type is passed on.
    except Exception as error:
        raise Unreadable(
            f'damaged or unusual DICOM header ({type(error).__name__}); export the image again'
        ) from error
    if reason:
        raise Skipped(reason)
    if header.get('Rows') is None and not headers.sop_class(header):
        raise Unreadable('has no SOP class and no image; copy the file again')
    try:
        image, doubts = dicom.decode(file, max_pixels=max_pixels)
        image = dicom.to_uint8(image)
    except dicom.Colour:
        raise Skipped(dicom.COLOUR) from None
    except dicom.DicomError as error:
        raise Unreadable(str(error)) from error
    except MemoryError:
        raise Unreadable('needs more memory than available; downsample the image first') from None
    return Radiograph(image, spacing, aspect, notes + doubts, header)


def _read_picture(path: str | os.PathLike, max_pixels: int) -> Radiograph:
    try:
        picture = picture_files.read(path, max_pixels=max_pixels)
    except picture_files.NotGrey as error:
        raise Skipped(str(error)) from None
    except ValueError as error:
        raise Unreadable(str(error)) from None
    notes = ['not a DICOM file: no SEG, and no area in mm²']
    if picture.orientation != exif.UPRIGHT:
        notes.append('turned as its EXIF orientation says; its mask fits the turned image')
    return Radiograph(picture.pixels, None, 1.0, tuple(notes), None)


def _bare_dicom(head: bytes) -> bool:
    """Whether the bytes look like a DICOM data set without a file header."""
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
