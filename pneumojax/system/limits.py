"""Limits on what is read from files, checked before memory is taken.

The limits are far above what real files need (a stitched long film has some 50 million pixels,
SIIM's table of masks 10 MB, this network's weights 100 MB) and far below what stops a machine.
"""

import errno
import io
import os
import pathlib
import stat

MAX_PIXELS = 100_000_000  # of one image
MAX_IMAGE_BYTES = 1 << 29  # of an image file; of a deflated DICOM file once inflated
MAX_TABLE_BYTES = 1 << 28  # of a CSV
MAX_TABLE_ROWS = 5_000_000
MAX_JSON_BYTES = 1 << 26  # of a small file of a run or a prediction
MAX_WEIGHT_BYTES = 1 << 32  # of a file of weights, and of the tensors in it
_AT_ONCE = 1 << 25  # bytes of a file that is read in one piece


class TooLarge(ValueError):
    """Something exceeds a limit. The message says by how much and which limit, without the path."""


def check_bytes(count: int, limit: int, of: str = 'the file') -> None:
    """Raises TooLarge when there are more bytes than the limit."""
    if count > limit:
        raise TooLarge(f'{of} has {count} bytes, more than the limit of {limit}')


def check_file(path: str | os.PathLike, limit: int) -> None:
    """Raises TooLarge when a file has more bytes than the limit, OSError when there is no file."""
    check_bytes(os.stat(path).st_size, limit)


class BoundedFile(io.BufferedReader):
    """A file for parsers that trust the lengths written in it.

    Python allocates as many bytes as a read asks for before it looks how many there are, so a
    damaged length of 4 GB would take 4 GB of memory. Only regular files are opened: a named pipe
    would block forever.

    Args:
      path: the file.

    Raises:
      OSError: it cannot be opened, or is no regular file.
    """

    def __init__(self, path: str | os.PathLike):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, 'not a regular file', os.fspath(path))
        super().__init__(io.FileIO(path))
        self.size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads and allocates at most what is left of the file."""
        if size is not None and size > 0:
            size = min(size, max(self.size - self.tell(), 0))
        return super().read(size)


def in_memory(file: BoundedFile) -> io.BytesIO | BoundedFile:
    """The file at its start; a small one is copied to memory, where parsers read many small pieces.

    Raises:
      OSError: it cannot be read.
    """
    file.seek(0)
    return file if file.size > _AT_ONCE else io.BytesIO(file.read())


def read_text(path: pathlib.Path, limit: int = MAX_JSON_BYTES) -> str:
    """The text of a UTF-8 file of limited size.

    Raises:
      TooLarge, UnicodeDecodeError: both are ValueErrors.
      OSError: it cannot be read.
    """
    check_file(path, limit)
    return path.read_text(encoding='utf-8')
