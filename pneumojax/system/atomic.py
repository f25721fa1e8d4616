"""Files and folders that appear whole or not at all.

Each is written beside its place, under a hidden name, and renamed when it is complete. Readers see
the old one or the new one, never a part. After an error only the old one is there.
"""

import contextlib
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Iterator

from pneumojax.errors import UsageError
from pneumojax.system import locks
from pneumojax.system.progress import log

LOCK = 'being_written.lock'  # in an unfinished folder, held as long as its process lives


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields the name of a file to write, which then takes the place of the file `path`.

    Args:
      path: of the file, which may exist; its folder exists.
    """
    path = pathlib.Path(path)
    unfinished = _beside(path)
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file, in place of an older one if there is one. Text is written as UTF-8."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


def write_new(path: pathlib.Path, content: bytes) -> None:
    """Writes a file that does not exist yet, and makes its folder.

    Raises:
      UsageError: the file exists already, or cannot be written.
    """
    refuse_existing(path)
    unfinished = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        _rename_new(unfinished, path)
    except OSError as error:
        raise UsageError(f'{path} cannot be written: {error.strerror}') from None
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def refuse_existing(*paths: pathlib.Path) -> None:
    """Raises UsageError when one of them exists."""
    for path in paths:
        if os.path.lexists(path):
            raise _exists(path)


@contextlib.contextmanager
def new_folder(
    path: str | os.PathLike, is_complete: Callable[[pathlib.Path], bool] | None = None
) -> Iterator[pathlib.Path]:
    """Yields an empty folder to fill, which then becomes the folder `path`.

    Folders beside it that killed processes left unfinished are removed.

    Args:
      path: of the folder, which does not exist yet or is empty; its parent exists.
      is_complete: whether a folder that another process has put there in the meantime will do.

    Raises:
      OSError: the folder cannot be made, or its place has been taken in the meantime.
    """
    path = pathlib.Path(path)
    _remove_abandoned(path.parent)
    unfinished = _beside(path)
    try:
        unfinished.mkdir()
        with locks.LockFile(unfinished / LOCK, wait=True):
            yield unfinished
        try:
            unfinished.replace(path)
        except OSError:
            if is_complete is None or not is_complete(path):
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _beside(path: pathlib.Path) -> pathlib.Path:
    # The random part stands in front: some writers look at the ending of a name.
    return path.with_name(f'.{secrets.token_hex(4)}.{path.name}')


def _remove_abandoned(parent: pathlib.Path) -> None:
    for lock in parent.glob(f'.*/{LOCK}'):
        if locks.is_abandoned(lock):
            log.info('removing %s, left unfinished by a process that was killed', lock.parent)
            shutil.rmtree(lock.parent, ignore_errors=True)


def _rename_new(old: pathlib.Path, new: pathlib.Path) -> None:
    try:
        os.link(old, new)  # unlike a rename, this fails where another file came first
    except FileExistsError:
        raise _exists(new) from None
    except OSError:  # a file system without hard links
        refuse_existing(new)
        os.replace(old, new)


def _exists(path: pathlib.Path) -> UsageError:
    return UsageError(f'{path} exists already and is not overwritten; give another --output')
