"""Standard streams that a long run can rely on: nothing that happens to them ends the program."""

import contextlib
import io
import os
import sys
from typing import Any, TextIO


def make_reliable() -> None:
    """Replaces stdout and stderr by streams that never raise.

    A terminal that is gone, a closed pipe or a full disk behind them costs the text, not the work.
    What their encoding lacks is written as `\\\\u2026`. Streams that were closed when the program
    started are opened on the null device: else the next file opened would get their number, and
    libraries would write their messages into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout, sys.stderr = _reliable(sys.stdout, 1), _reliable(sys.stderr, 2)


def _reliable(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is not None and not _is_standard(stream, descriptor):
        return stream  # replaced by whoever called us, such as a test
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.flush()
    raw = _Lossy(descriptor, 'w', closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=getattr(stream, 'encoding', 'utf-8'),
        errors='backslashreplace', line_buffering=descriptor == 2 or raw.isatty(),
    )  # fmt: skip


def _is_standard(stream: TextIO, descriptor: int) -> bool:
    try:
        return stream.fileno() == descriptor
    except (OSError, ValueError):  # one in memory, or closed
        return False


class _Lossy(io.FileIO):
    """A file that takes what cannot be written as written."""

    def write(self, data: Any, /) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        return memoryview(data).nbytes if written is None else written
