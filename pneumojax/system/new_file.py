"""Files that appear whole or not at all, and never in the place of another."""

import contextlib
import os
import pathlib

from pneumojax.errors import UsageError


def write_new(path: pathlib.Path, content: bytes) -> None:
    """Writes a file that does not exist yet; its folder is made.

    Raises:
      UsageError: it exists already, or cannot be written; then nothing is left behind.
    """
    refuse_existing(path)
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}')
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


def _rename_new(old, new):
    try:
        os.link(old, new)  # unlike a rename, this fails where another file came first
    except FileExistsError:
        raise _exists(new) from None
    except OSError:  # a file system without hard links
        refuse_existing(new)
        os.replace(old, new)


def _exists(path: pathlib.Path) -> UsageError:
    return UsageError(f'{path} exists already and is not overwritten; give another --output')
