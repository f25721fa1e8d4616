"""What the program prints while it works: one logger, progress, and signs of life in silent steps.

On a terminal progress is a bar that is drawn again and again. Elsewhere, as in the log of a batch
system, that would be thousands of characters for terminals, so it is a plain line now and then.
"""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from absl import logging as absl_logging
from tqdm import tqdm

log = logging.getLogger('pneumojax')
T = TypeVar('T')
EVERY = 60.0  # seconds between two lines about progress, where there is no terminal


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


def bar(
    iterable: Iterable[T] | None = None,
    desc: str = '',
    total: int | None = None,
    *,
    unit: str,
    initial: int = 0,
    unit_scale: bool = False,
    disable: bool = False,
) -> Any:
    """Shows how far the work is: tqdm's bar on a terminal, else `Lines`.

    Args:
      iterable: what to work on; without it, call `update`.
      desc: what is being done.
      total: number of steps in all, if that is known.
      unit: what one step is, such as 'image'.
      initial: steps that are done already.
      unit_scale: show large numbers as 12.3M.
      disable: show nothing.

    Returns:
      An iterable and a context manager, with `update`, `refresh`, `set_postfix` and `close`.
    """
    if disable or _has_terminal():
        return tqdm(
            iterable, desc, total, unit=unit, initial=initial, unit_scale=unit_scale,
            disable=disable, mininterval=0.5,
        )  # fmt: skip
    return Lines(iterable, desc, total, unit=unit, initial=initial, unit_scale=unit_scale)


class Lines(Generic[T]):
    """The same interface as tqdm's: a line every `EVERY` seconds, and one at the end.

    Args:
      iterable, desc, total, unit, initial, unit_scale: see `bar`.
    """

    def __init__(
        self, iterable: Iterable[T] | None, desc: str, total: int | None, *,
        unit: str, initial: int, unit_scale: bool,
    ):  # fmt: skip
        self.n = initial
        self._iterable, self._desc, self._total = iterable, desc, total
        self._unit, self._initial, self._scale = unit, initial, unit_scale
        self._postfix: dict[str, object] = {}
        self._closed = False
        self._began = self._written = time.monotonic()

    def __iter__(self) -> Iterator[T]:
        with self:
            for item in self._iterable or ():
                yield item
                self.update()

    def __enter__(self) -> 'Lines[T]':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Counts `n` more steps."""
        self.n += n
        if self.n != self._total:  # else the last line comes soon
            self.refresh()

    def refresh(self) -> None:
        """Writes a line if the last one is long ago."""
        if time.monotonic() - self._written >= EVERY:
            self._write()

    def set_postfix(self, refresh: bool = True, **values: object) -> None:
        """Sets what to write behind the numbers. What was set before stays."""
        self._postfix |= values
        if refresh:
            self.refresh()

    def close(self) -> None:
        """Writes the last line."""
        if not self._closed:
            self._closed = True
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        counted = '{n_fmt}{unit}' if self._scale else '{n_fmt} {unit}s'
        ends = self._closed or self._total is None
        if self._total is not None:
            counted = counted.replace('{n_fmt}', '{n_fmt} of {total_fmt}') + ' ({percentage:.0f} %)'
        line = tqdm.format_meter(
            self.n, self._total, self._written - self._began, prefix=self._desc,
            unit=self._unit, unit_scale=self._scale, initial=self._initial,
            bar_format='{desc}: ' + counted + ', {elapsed}' + ', {remaining} left' * (not ends)
            + '{postfix}',
            postfix=', '.join(f'{name} {value}' for name, value in self._postfix.items()),
        )  # fmt: skip
        _line(line)


@contextlib.contextmanager
def waiting(message: str, every: float = 2.0) -> Iterator[None]:
    """Writes `message` and the seconds passed to stderr until the block ends.

    Args:
      message: what takes so long, such as 'compiling the training step'.
      every: seconds between two signs of life.
    """
    start = time.monotonic()
    if not _has_terminal():
        _line(f'{message} ...')

        def still() -> None:
            _line(f'{message} ... {tqdm.format_interval(time.monotonic() - start)}')

        try:
            with meanwhile(still, max(every, EVERY)):
                yield
        finally:
            _line(f'{message} ({time.monotonic() - start:.1f} s)')
        return
    bar = tqdm(desc=message, bar_format='{desc} ... {elapsed}', leave=True)
    try:
        with meanwhile(bar.refresh, every):
            yield
    finally:
        bar.set_description_str(f'{message} ({time.monotonic() - start:.1f} s)', refresh=True)
        bar.close()


def _has_terminal() -> bool:
    """Whether bars can be drawn. A log in another format, as of a node, is not drawn upon."""
    return sys.stderr.isatty() and not _has_other_format()


def _line(text: str) -> None:
    if _has_other_format():
        log.info(text)
    else:
        print(text, file=sys.stderr, flush=True)


def _has_other_format() -> bool:
    return bool(log.handlers) and not any(isinstance(h, _AboveBars) for h in log.handlers)


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
