"""What the program prints while it works: one logger, and signs of life in silent steps."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator

from absl import logging as absl_logging
from tqdm import tqdm

log = logging.getLogger('pneumojax')


class _AboveBars(logging.Handler):
    """Writes lines above running progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = 'warning: ' if record.levelno >= logging.WARNING else ''
        tqdm.write(prefix + record.getMessage(), file=sys.stderr)


def show_log() -> None:
    """Shows this package's messages on stderr, and only warnings of absl's libraries."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    log.setLevel(logging.INFO)
    log.propagate = False
    if not log.handlers:
        log.addHandler(_AboveBars())


@contextlib.contextmanager
def waiting(message: str, every: float = 2.0) -> Iterator[None]:
    """Writes `message` and the seconds passed to stderr until the block ends.

    Args:
      message: what takes so long, such as 'compiling the training step'.
      every: seconds between two signs of life.
    """
    start = time.monotonic()
    bar = tqdm(desc=message, bar_format='{desc} ... {elapsed}', leave=True)
    try:
        with meanwhile(bar.refresh, every):
            yield
    finally:
        bar.set_description_str(f'{message} ({time.monotonic() - start:.1f} s)', refresh=True)
        bar.close()


@contextlib.contextmanager
def meanwhile(call: Callable[[], object], every: float) -> Iterator[None]:
    """Calls a function repeatedly in a thread until the block ends.

    Args:
      call: the function; first called after `every` seconds, never after the block.
      every: seconds between two calls.
    """
    done = threading.Event()

    def repeat() -> None:
        while not done.wait(every):
            call()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
