"""The folder of received images. Nothing that a peer sends decides a name or a place on the disk.

An image is written as a DICOM file under the hash of its UID and content, waits until it is on the
disk, and is then entered in the queue. Only after that its peer is told that it was received.
"""

import errno
import io
import os
import pathlib
import re
import shutil
import zlib
from typing import Literal, NamedTuple

import pydicom
from pydicom import filewriter, uid
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset, read_preamble
from pydicom.tag import BaseTag, Tag

from pneumojax.data.files import headers
from pneumojax.serving import events
from pneumojax.serving.queue import Queue, digest, file_name
from pneumojax.system import atomic

# What this package reads; in the order in which one is chosen if a peer offers several.
TRANSFER_SYNTAXES = (
    uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian,
    uid.JPEGLosslessSV1, uid.JPEGLossless, uid.JPEGLSLossless, uid.JPEG2000Lossless,
    uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.RLELossless, uid.DeflatedExplicitVRLittleEndian,
    uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K,
    uid.ExplicitVRBigEndian,
)  # fmt: skip
_HEADER_BYTES = 1 << 22  # of a data set, in which its UIDs stand
_LAST = Tag('StudyInstanceUID')  # of the tags that are read here
_READ: list[BaseTag | int] = [
    _LAST, Tag('SOPClassUID'), Tag('SOPInstanceUID'), Tag('ManufacturerModelName')
]  # fmt: skip
_FILE = re.compile(r'[0-9a-f]{40}-[0-9a-f]{16}\.dcm')

Outcome = Literal['new', 'duplicate', 'own result']


class Refused(ValueError):
    """An object that is not taken; the message quotes nothing of it.

    Args:
      reason: for the peer and the log.
      status: of the C-STORE response (PS3.4 table B.2-1).
    """

    def __init__(self, reason: str, status: int = 0xC000):
        super().__init__(reason)
        self.status = status


class Object(NamedTuple):
    """An instance as it came: an encoded data set, and what was said about it."""

    syntax: str
    sop_class: str
    instance: str
    data: memoryview


class Inbox:
    """Takes up images.

    Args:
      folder: of the files.
      queue: that they are entered in.
      free_bytes: what must be left on the disk, or nothing is taken.
    """

    def __init__(self, folder: pathlib.Path, queue: Queue, free_bytes: int):
        self.folder, self._queue, self._free_bytes = folder, queue, free_bytes

    def store(self, one: Object) -> tuple[Outcome, int | None]:
        """Puts an image on the disk and into the queue.

        Returns:
          (what it is, its number in the queue if it is new).

        Raises:
          Refused: it is nothing that can be predicted.
          OSError: the disk is full, or cannot be written.
          sqlite3.OperationalError: the same, of the queue.
        """
        header = _check(one)
        instance, content = digest(one.instance), digest(one.data)
        if self._queue.is_known(instance, content):
            return 'duplicate', None
        if header.get('ManufacturerModelName') == 'pneumojax' or self._queue.is_result(instance):
            return 'own result', None  # an archive that forwards everything sends them back
        self.check_space()
        path = self.path(file_name(instance, content))
        with atomic.replacing(path) as unfinished, open(unfinished, 'wb') as file:
            file.write(_part_10_header(one))
            file.write(one.data)
        number = self._queue.add(instance, content, digest(str(header.StudyInstanceUID)))
        return ('duplicate', None) if number is None else ('new', number)

    def path(self, name: str) -> pathlib.Path:
        """The file of an image."""
        return self.folder / f'{name}.dcm'

    def check_space(self) -> None:
        """Raises OSError when too little is left on the disk."""
        if shutil.disk_usage(self.folder).free < self._free_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(self.folder))

    def adopt(self) -> None:
        """Enters files that are not in the queue: a kill came in between, or the queue was lost."""
        for path in sorted(self.folder.iterdir()):
            if not _FILE.fullmatch(path.name) or path.is_symlink():
                continue
            instance, _, short = path.stem.partition('-')
            if self._queue.is_known_file(instance, short):
                continue
            try:
                one = split(memoryview(path.read_bytes()))
                study = digest(str(_check(one).StudyInstanceUID))
            except (OSError, Refused) as error:
                events.problem('a file in the inbox cannot be read', error=type(error).__name__)
                continue
            if file_name(digest(one.instance), digest(one.data)) == path.stem:
                number = self._queue.add(instance, digest(one.data), study)
                events.event('taken up from the inbox', image=number)


def split(content: memoryview) -> Object:
    """The parts of a DICOM file in memory. Raises Refused."""
    file = io.BytesIO(content[:_HEADER_BYTES])
    try:
        read_preamble(file, False)
        meta = pydicom.filereader._read_file_meta_info(file)
        return Object(
            str(meta.TransferSyntaxUID), str(meta.MediaStorageSOPClassUID),
            str(meta.MediaStorageSOPInstanceUID), content[file.tell() :],
        )  # fmt: skip
    except Exception:  # pydicom's messages may quote the file
        raise Refused('no DICOM file') from None


def _check(one: Object) -> pydicom.Dataset:
    """The few tags that are read here, after the checks of what is taken at all."""
    if one.syntax not in TRANSFER_SYNTAXES:
        raise Refused('the transfer syntax is not supported', 0x0122)
    if one.sop_class not in headers.STORAGE_CLASSES:
        raise Refused('the storage class is not supported', 0x0122)
    try:
        header = _header(one)
        found = {key: str(header.get(key) or '') for key in ('SOPClassUID', 'SOPInstanceUID')}
        study = str(header.get('StudyInstanceUID') or '')
        header.get('ManufacturerModelName')  # converts it, which may fail
    except Exception:  # as above
        raise Refused('the data set cannot be read') from None
    if found != {'SOPClassUID': one.sop_class, 'SOPInstanceUID': one.instance}:
        raise Refused('the data set is of another class or instance than announced', 0xA900)
    # Without valid UIDs, no result could reference the image.
    if not (uid.UID(one.instance).is_valid and study and uid.UID(study).is_valid):
        raise Refused('a UID is missing or malformed')
    return header


def _header(one: Object) -> pydicom.Dataset:
    syntax = uid.UID(one.syntax)
    head = bytes(one.data[:_HEADER_BYTES])
    if syntax.is_deflated:
        head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, _HEADER_BYTES)
    return read_dataset(
        io.BytesIO(head), syntax.is_implicit_VR, syntax.is_little_endian,
        stop_when=lambda tag, vr, length: tag > _LAST, specific_tags=_READ,
    )  # fmt: skip


def _part_10_header(one: Object) -> bytes:
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.UID(one.sop_class)
    meta.MediaStorageSOPInstanceUID = uid.UID(one.instance)
    meta.TransferSyntaxUID = uid.UID(one.syntax)
    buffer = DicomBytesIO()
    buffer.write(b'\0' * 128 + b'DICM')
    filewriter.write_file_meta_info(buffer, meta, enforce_standard=True)
    return buffer.getvalue()
