"""Files that appear whole or not at all."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a name to write to, beside the file, which takes its place when nothing goes wrong.

    Readers see the old file or the new one, never a part. After an error the old one is still
    there, and nothing else.

    Args:
      path: of the file; its folder exists.
    """
    path = pathlib.Path(path)
    # In front of the name: some writers look at its ending.
    unfinished = path.with_name(f'.{os.getpid()}.{path.name}')
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
