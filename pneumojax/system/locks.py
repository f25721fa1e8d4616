"""Lock files: one process at a time, and the system frees the lock however that process ends."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
from typing import IO

from pneumojax.errors import UsageError
from pneumojax.system.progress import log


class LockFile:
    """A context that holds a lock file and removes it at the end. It can be entered again.

    Where the file system has no locks, a warning says so and the block runs without one.

    Args:
      path: of the file; its folder exists.
      wait: for a process that holds it, instead of raising.

    Raises:
      UsageError: another process holds it. The message names its id and machine.
      OSError: the file cannot be written.
    """

    def __init__(self, path: pathlib.Path, *, wait: bool = False):
        self._path, self._wait = path, wait

    def __enter__(self) -> None:
        self._file = _lock(self._path, self._wait)

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._file.close()


def is_abandoned(path: pathlib.Path) -> bool:
    """Whether a lock file was left behind by a process that was killed while it held it."""
    try:
        with path.open('r+') as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return bool(file.read())  # an empty one has just been made and is about to be locked
    except OSError:
        return False


def _lock(path: pathlib.Path, wait: bool) -> IO[str] | None:
    """The locked file; None on a file system without locks."""
    while True:
        file = path.open('a+')
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = _owner(file.read())
            file.close()
            raise UsageError(
                f'{path.parent} is in use by {owner}; wait for it, end it, or use another folder'
            ) from None
        except OSError as error:
            log.warning(
                '%s cannot be locked (%s): start no second process on it', path, error.strerror
            )
            file.close()
            return None
        # The owner before us may have removed the file between our open and our lock. Then others
        # would not find the one that we hold.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                file.truncate(0)
                file.write(json.dumps({'pid': os.getpid(), 'host': socket.gethostname()}))
                file.flush()
                return file
        file.close()


def _owner(text: str) -> str:
    try:
        owner = json.loads(text)
        return f'process {owner["pid"]} on {owner["host"]}'
    except (ValueError, KeyError, TypeError):
        return 'another process'
