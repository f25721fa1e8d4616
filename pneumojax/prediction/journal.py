"""What is done so far, so that an interrupted prediction goes on where it stopped.

One JSON object a line with its checksum, appended when all files about one input are written.
From a line that is cut off or changed on, everything is dropped, and so done again. Rows live on
the disk; in memory is only where each one begins.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from pneumojax.data.files import inputs


class Journal:
    """Rows by file name; a later row about the same file replaces the earlier.

    Args:
      path: of the journal; made when it is not there.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self._file = open(self.path, 'a+b')  # noqa: SIM115 (open as long as the journal is)
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

    def add(self, row: dict[str, Any]) -> None:
        """Appends a row; it must hold 'file'."""
        text = json.dumps(row, ensure_ascii=True).encode()
        line = text + b'\t' + _checksum(text) + b'\n'
        start = self._file.seek(0, os.SEEK_END)
        self._file.write(line)
        self._file.flush()
        self._start[row['file']] = start

    def __contains__(self, file: str) -> bool:
        return file in self._start

    def __getitem__(self, file: str) -> dict[str, Any]:
        self._file.seek(self._start[file])
        row = _read(self._file.readline())
        assert row is not None  # it was read when its place was noted
        return row

    def rows(self, files) -> Iterator[dict[str, Any]]:
        """The rows about those of `files` that have one, in the order given."""
        for file in files:
            if file in self._start:
                yield self[file]

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _read(line: bytes) -> dict[str, Any] | None:
    """The row of a line; None where the line is not whole."""
    text, tab, checksum = line.rpartition(b'\t')
    if not tab or checksum != _checksum(text) + b'\n':
        return None
    row = json.loads(text)
    # Who could forge a checksum could still not name files elsewhere.
    named = isinstance(row, dict) and isinstance(row.get('file'), str)
    return row if named and inputs.is_safe(row.get('ImageId')) else None


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:16].encode()
