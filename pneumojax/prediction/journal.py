"""What is done so far, so that an interrupted prediction continues where it stopped.

One JSON object per line, with its checksum, is appended when all files about one input are written.
If a line is cut off or was changed, it and everything after it are dropped, and so done again. Rows
stay on the disk; memory holds only where each one starts.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, Self

from pneumojax.data.files import inputs

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
        self._file.seek(0)
        end = 0
        for line in self._file:
            row = _read(line)
            if row is None:
                break
            self._start[row['file']] = end
            end += len(line)
        self._file.truncate(end)  # a half-written line, and nothing after it

    def add(self, row: ResultRow) -> None:
        """Appends a row; it must hold 'file'."""
        text = json.dumps(row, ensure_ascii=True).encode()
        line = text + b'\t' + _checksum(text) + b'\n'
        start = self._file.seek(0, os.SEEK_END)
        self._file.write(line)
        self._file.flush()
        self._start[row['file']] = start

    def __contains__(self, file: str) -> bool:
        return file in self._start

    def __getitem__(self, file: str) -> ResultRow:
        self._file.seek(self._start[file])
        row = _read(self._file.readline())
        assert row is not None  # it was read when its position was noted
        return row

    def rows(self, files: Iterable[str]) -> Iterator[ResultRow]:
        """The rows about `files`, in this order; files without a row are skipped."""
        for file in files:
            if file in self._start:
                yield self[file]

    def close(self) -> None:
        """Closes the file."""
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
    return row if named and inputs.is_safe(row.get('ImageId')) else None


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:16].encode()
