"""Memory that a machine already has, for what is about to be written.

Some virtual machines hand free memory back to their host within a second, and take it anew, page by
page, when it is written to: 7 microseconds a page where this was measured, ten times what the
writing itself costs, and nothing that a change of ours could mend. Files that are deleted as others
grow leave their pages to these.
"""

import collections
import contextlib
import pathlib
import shutil
from collections.abc import Callable

from pneumojax.system.progress import meanwhile

_PIECE = 16 << 20  # bytes of a file
_AHEAD = 128 << 20  # deleted before as much is written
_EVERY = 0.03  # seconds


def hold(folder: pathlib.Path, size: int) -> None:
    """Writes files of so many bytes together, and a little more."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for start in range(0, size + 2 * _AHEAD, _PIECE):
        (folder / f'{start:015}').write_bytes(bytes(_PIECE))


def give_up(
    folder: pathlib.Path, written: Callable[[], int]
) -> contextlib.AbstractContextManager[None]:
    """Deletes those files while something is written; `written` says how many bytes are."""
    pieces = collections.deque(sorted(folder.iterdir()))
    count = len(pieces)

    def delete():
        due = (written() + _AHEAD) // _PIECE
        while pieces and count - len(pieces) < due:
            pieces.popleft().unlink()

    return meanwhile(delete, _EVERY)
