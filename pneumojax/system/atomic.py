"""Files and folders that appear whole or not at all.

Each is written beside its place, under a hidden name, and renamed when it is complete. Readers see
the old one or the new one, never a part. After an error only the old one is there. Files are on the
disk, not only on their way to it, when the functions return.

A process that is killed leaves what it had not finished. Folders among that hold a lock file, which
tells whether their writer still lives. A file's writer holds a shared lock on the file's folder, so
`sweep` removes files only while nobody writes one there.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator

from pneumojax.errors import UsageError
from pneumojax.system import locks
from pneumojax.system.progress import log

_HIDDEN = r'\.[0-9a-f]{8}\.'
_INSTANT = 600  # seconds
LOCK = 'being_written.lock'  # in an unfinished folder, held as long as its process lives


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields the name of a file to write, which then takes the place of the file `path`.

    Args:
      path: of the file, which may exist; its folder exists.
    """
    path = pathlib.Path(path)
    unfinished = _beside(path)
    with naming(path, unfinished), _writing_in(path.parent):
        try:
            yield unfinished
            _sync(unfinished)
            unfinished.replace(path)
            _sync(path.parent)
        finally:
            unfinished.unlink(missing_ok=True)


def write(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file, in place of an older one if there is one. Text is written as UTF-8."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def naming(path: str | os.PathLike, *hidden: pathlib.Path) -> Iterator[None]:
    """Makes errors of the system name the file that is written: those of a full disk do not.

    Args:
      path: of the file.
      hidden: names under which it is written, which mean nothing to a user.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, *map(str, hidden)):
            error.filename = os.fspath(path)
        raise


def sweep(folder: pathlib.Path, name: str | None = None) -> None:
    """Removes the unfinished files that killed processes left in a folder, which may not exist.

    Nothing is removed while any process writes there, or where the file system has no locks.

    Args:
      folder: where they are.
      name: of the only file whose unfinished copies are removed; all by default.
    """
    named = re.escape(name) if name is not None else '.+'
    with contextlib.suppress(OSError), _writing_in(folder, alone=True) as is_alone:
        for entry in os.scandir(folder) if is_alone else ():
            if re.fullmatch(_HIDDEN + named, entry.name) and entry.is_file(follow_symlinks=False):
                log.info('removing %s, left unfinished by a process that was killed', entry.path)
                os.unlink(entry.path)


def write_new(path: pathlib.Path, content: bytes) -> None:
    """Writes a file that does not exist yet, and makes its folder.

    Raises:
      UsageError: the file exists already, or cannot be written.
    """
    refuse_existing(path)
    unfinished = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, path.name)
        with _writing_in(path.parent):
            unfinished.write_bytes(content)
            _sync(unfinished)
            _rename_new(unfinished, path)
            _sync(path.parent)
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
        with naming(path, unfinished):
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


@contextlib.contextmanager
def _writing_in(folder: pathlib.Path, *, alone: bool = False) -> Iterator[bool]:
    """Holds a lock on a folder; yields False where that cannot be had.

    Args:
      folder: many may write in it at a time.
      alone: do not wait, but give up if any other process or thread writes there.
    """
    with contextlib.ExitStack() as stack:
        locked = False
        with contextlib.suppress(OSError):  # it may be writable without being readable
            descriptor = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
            locked = True
        yield locked


def _sync(path: pathlib.Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # written, but not readable
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not on this file system
            raise
    finally:
        os.close(descriptor)


def _remove_abandoned(parent: pathlib.Path) -> None:
    for folder in parent.glob('.*'):
        with contextlib.suppress(OSError):
            if re.match(_HIDDEN, folder.name) and folder.is_dir() and _is_abandoned(folder):
                log.info('removing %s, left unfinished by a process that was killed', folder)
                shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: pathlib.Path) -> bool:
    if (folder / LOCK).exists():
        return locks.is_abandoned(folder / LOCK)
    # It has no lock for an instant before it is filled, and again before it is renamed.
    return time.time() - folder.stat().st_mtime > _INSTANT


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
