"""What is done so far, so that an interrupted prediction goes on where it stopped.

One JSON object a line, appended when all files about one input are written. A line cut off by a
crash is dropped. Rows live on the disk; in memory is only where each one begins.
"""

import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any


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
            if not line.endswith(b'\n'):
                break
            try:
                self._start[json.loads(line)['file']] = end
            except (ValueError, KeyError, TypeError):
                break
            end += len(line)
        self._file.truncate(end)  # a half-written line, and nothing after it

    def add(self, row: dict[str, Any]) -> None:
        """Appends a row; it must hold 'file'."""
        line = json.dumps(row, ensure_ascii=True).encode() + b'\n'
        start = self._file.seek(0, os.SEEK_END)
        self._file.write(line)
        self._file.flush()
        self._start[row['file']] = start

    def forget(self, file: str) -> None:
        """Makes as if there were no row about a file (until the journal is opened again)."""
        self._start.pop(file, None)

    def __contains__(self, file: str) -> bool:
        return file in self._start

    def __getitem__(self, file: str) -> dict[str, Any]:
        self._file.seek(self._start[file])
        return json.loads(self._file.readline())

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
