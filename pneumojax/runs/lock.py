"""One process at a time in a run directory."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator

from pneumojax.errors import UsageError
from pneumojax.system.progress import log

NAME = '.lock'


@contextlib.contextmanager
def owned(folder: pathlib.Path) -> Iterator[None]:
    """Owns a folder within the block; the system frees it when the process ends, however it does.

    Raises:
      UsageError: another process owns it; its id and its machine are named.
      OSError: the folder cannot be written.
    """
    file = _locked(folder)
    try:
        yield
    finally:
        if file is not None:
            (folder / NAME).unlink(missing_ok=True)
            file.close()


def _locked(folder: pathlib.Path):
    """The locked file; None on a file system that knows no locks."""
    path = folder / NAME
    while True:
        file = path.open('a+')
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = _owner(file.read())
            file.close()
            raise UsageError(
                f'{folder} is in use by {owner}; wait for it, end it, or give another --workdir'
            ) from None
        except OSError as error:
            log.warning(
                '%s cannot be locked (%s): start no second process on it', path, error.strerror
            )
            file.close()
            return None
        # Between open and lock the owner before may have removed the file: then it is no longer
        # the one that others find.
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
