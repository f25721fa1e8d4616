"""Signs of life for steps that say nothing themselves, such as a compilation."""

import contextlib
import sys
import threading
import time


@contextlib.contextmanager
def waiting(message: str, every: float = 2.0):
    """Writes `message`, then the seconds that passed, to stderr until the block ends."""
    done = threading.Event()
    start = time.monotonic()
    live = sys.stderr.isatty()

    def tick():
        while not done.wait(every):
            line = f'{message} ... {time.monotonic() - start:.0f} s'
            print(f'\r{line}' if live else line, end='' if live else '\n', file=sys.stderr)
            sys.stderr.flush()

    print(f'{message} ...', end='' if live else '\n', file=sys.stderr, flush=True)
    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        if live:
            print(f'\r{message} ... {time.monotonic() - start:.0f} s', file=sys.stderr, flush=True)
