"""A checkpoint that cannot be written: one line that says why, instead of three reports of it."""

import functools
import logging
import os
import re
import sys
from typing import Any

_WRITERS = 'future.py', 'async_checkpointer.py', 'checkpoint_manager.py'  # files of Orbax


def cause(error: Exception) -> str:
    """Why Orbax could not write: what the system said, or else the end of its long message."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = ' '.join(str(error).split())
    if codes := re.findall(r"os_error_code='(\d+)'", text):
        return os.strerror(int(codes[-1]))
    return f'{type(error).__name__}: {text[-300:]}'


@functools.cache
def silence() -> None:
    """Drops what Orbax's threads print about an error that its caller gets as an exception too."""
    logging.getLogger('absl').addFilter(
        lambda record: not (record.exc_info and record.filename in _WRITERS)
    )
    show = sys.unraisablehook

    def show_others(found: Any) -> None:
        # Writes that were under way beside the failed one end when nobody waits for them any more.
        if str(found.exc_value) != 'Event loop is closed':
            show(found)

    sys.unraisablehook = show_others
