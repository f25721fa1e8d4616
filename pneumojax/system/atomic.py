"""Files and folders that appear whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile
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


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields an empty folder to fill, beside that path, which it gets when nothing goes wrong.

    Args:
      path: of the folder, which is not there yet or empty; its parent exists.

    Raises:
      OSError: it cannot be made, or something else stands there by now.
    """
    path = pathlib.Path(path)
    unfinished = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=f'.{path.name}.'))
    try:
        yield unfinished
        unfinished.chmod(0o755)  # made for its owner alone
        unfinished.replace(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
