"""Keeps memory in a virtual machine for files that are about to be written.

Some virtual machines return free memory to their host within a second, and request it again page by
page when it is written to. That took 7 microseconds a page where it was measured, ten times as long
as the writing itself, and no change of our code can avoid it. Files that are deleted while others
grow pass their pages on to these.
"""

import collections
import contextlib
import pathlib
import shutil
from collections.abc import Callable

from pneumojax.system.progress import meanwhile

_PIECE = 16 << 20  # bytes of a file
_AHEAD = 128 << 20  # bytes that are deleted ahead of what is written
_EVERY = 0.03  # seconds


def hold(folder: pathlib.Path, size: int) -> None:
    """Writes files of `size` bytes in all, and a little more."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for start in range(0, size + 2 * _AHEAD, _PIECE):
        (folder / f'{start:015}').write_bytes(bytes(_PIECE))


def give_up(
    folder: pathlib.Path, written: Callable[[], int]
) -> contextlib.AbstractContextManager[None]:
    """Deletes those files while others are written; `written` returns how many bytes are."""
    pieces = collections.deque(sorted(folder.iterdir()))
    count = len(pieces)

    def delete() -> None:
        due = (written() + _AHEAD) // _PIECE
        while pieces and count - len(pieces) < due:
            pieces.popleft().unlink()

    return meanwhile(delete, _EVERY)
