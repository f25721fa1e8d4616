"""What is done so far, so that an interrupted prediction continues where it stopped.

One JSON object per line, with its checksum, is appended when all files about one input are written.
If a line is cut off or was changed, it and everything after it are dropped, and so done again. Rows
stay on the disk; memory holds only where each one starts, and which file has which ImageId.
"""

import hashlib
import json
import os
import pathlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, Self

from pneumojax.data.files import inputs
from pneumojax.errors import UsageError
from pneumojax.system import atomic

_SYNC_EVERY = 1.0  # seconds; a power failure costs no more than the rows of so long

ResultRow = dict[str, Any]  # all that is known about one input file


class Journal:
    """Rows by file name; a later row about a file replaces the earlier one.

    Args:
      path: of the journal; created if it does not exist.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self._file = open(self.path, 'a+b')  # noqa: SIM115 (closed by `close`)
        self._start: dict[str, int] = {}
        self._named: dict[str, str] = {}  # ImageId -> the last file that was given it
        self._synced = time.monotonic()
        self._file.seek(0)
        end = 0
        for line in self._file:
            row = _read(line)
            if row is None:
                break
            self._note(row, end)
            end += len(line)
        self._file.truncate(end)  # a half-written line, and nothing after it

    def add(self, row: ResultRow) -> None:
        """Appends a row; it must hold 'file'."""
        text = json.dumps(row, ensure_ascii=True).encode()
        line = text + b'\t' + _checksum(text) + b'\n'
        with atomic.naming(self.path):
            start = self._file.seek(0, os.SEEK_END)
            self._file.write(line)
            self._file.flush()
            if time.monotonic() - self._synced > _SYNC_EVERY:
                self.sync()
        self._note(row, start)

    def sync(self) -> None:
        """Waits until all rows are on the disk."""
        with atomic.naming(self.path):
            os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _note(self, row: ResultRow, start: int) -> None:
        self._start[row['file']] = start
        self._named[row['ImageId']] = row['file']

    def file_named(self, image_id: str) -> str | None:
        """The file that was last recorded under an ImageId; None if there is none."""
        return self._named.get(image_id)

    @property
    def files(self) -> list[str]:
        """All files that have a row."""
        return list(self._start)

    def __contains__(self, file: str) -> bool:
        return file in self._start

    def __getitem__(self, file: str) -> ResultRow:
        self._file.seek(self._start[file])
        row = _read(self._file.readline())
        if row is None or row['file'] != file:  # it was read when its position was noted
            raise UsageError(
                f'{self.path} was changed by another process; end that one, then rerun the same '
                'command'
            )
        return row

    def rows(self, files: Iterable[str]) -> Iterator[ResultRow]:
        """The rows about `files`, in this order; files without a row are skipped."""
        for file in files:
            if file in self._start:
                yield self[file]

    def close(self) -> None:
        """Closes the file."""
        with atomic.naming(self.path):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read(line: bytes) -> ResultRow | None:
    """The row of a line; None if the line is damaged."""
    text, tab, checksum = line.rpartition(b'\t')
    if not tab or checksum != _checksum(text) + b'\n':
        return None
    row = json.loads(text)
    # Even with a forged checksum, a row cannot name files outside the folder.
    named = isinstance(row, dict) and isinstance(row.get('file'), str)
    named = named and isinstance(row.get('written', {}), dict)
    if not named or not inputs.is_safe(row.get('ImageId')):
        return None
    if 'probability' in row:  # earlier versions wrote the score alone, by this name
        row.setdefault('score', row['probability'])
    return row


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:16].encode()
