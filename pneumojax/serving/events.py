"""What a node prints: one JSON object a line on stderr, in which nobody is named.

Images, studies and peers appear by the queue's own numbers, and destinations by their names in the
settings. Messages of the rest of the package pass through, as they name nobody either; of other
libraries only the fact that they warned.
"""

import contextlib
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from pneumojax.system.progress import log

# Libraries that log or print what peers send.
_OTHERS = ('pynetdicom', 'dicomweb_client', 'urllib3', 'requests', 'retrying', 'pydicom')


class _Json(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        line = {
            'time': time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))
            + f'.{int(record.msecs):03d}Z',
            'level': record.levelname.lower(),
            'event': record.getMessage(),
            **getattr(record, 'fields', {}),
        }
        sys.stderr.write(json.dumps(line) + '\n')  # at once, so that lines of threads stay whole


@contextlib.contextmanager
def structured() -> Iterator[None]:
    """Inside the block, the program's log is structured and other libraries are silent."""
    before = log.handlers[:], log.level, log.propagate
    log.handlers[:], log.propagate = [_Json()], False
    log.setLevel(logging.INFO)
    hook, threading.excepthook = threading.excepthook, _thread_failed
    others = [logging.getLogger(name) for name in _OTHERS]
    states = [(one.level, one.propagate) for one in others]
    for one in others:
        one.setLevel(logging.CRITICAL + 1)
        one.propagate = False
    try:
        yield
    finally:
        threading.excepthook = hook
        log.handlers[:], level, log.propagate = before
        log.setLevel(level)
        for one, (level, propagate) in zip(others, states, strict=True):
            one.setLevel(level)
            one.propagate = propagate


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """For threads of libraries: an exception's message and traceback may quote a peer."""
    problem('thread failed', error=failure.exc_type.__name__)


def event(name: str, **fields: Any) -> None:
    """Logs that something happened, with numbers and words that name nobody."""
    log.info(name, extra={'fields': fields})


def problem(name: str, **fields: Any) -> None:
    """Logs that something went wrong."""
    log.warning(name, extra={'fields': fields})
