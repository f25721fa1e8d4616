"""Signals to end: training stops after the current step with a checkpoint, all else at once.

These are Ctrl-C (SIGINT), SIGTERM, and SIGHUP, which comes when a terminal or connection closes,
unless `nohup` told the program to ignore it. The exit status is the shell's: 130, 143 and 129.
"""

import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN = 0.05  # seconds until a signal is sent again that was lost


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to end.

    Args:
      signum: the signal.
    """

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.status = 128 + signum  # exit status


def end_on_terminate() -> None:
    """Makes SIGTERM and SIGHUP end the program as Ctrl-C does, by an exception."""
    for signum in _heeded(signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _end)
    sys.unraisablehook = _send_again


def end_at_once(status: int) -> None:
    """Lets one more signal end the program without an exception, as it is ending already.

    Args:
      status: exit status then.
    """
    for signum in _heeded(*SIGNALS):
        signal.signal(signum, lambda *_: os._exit(status))


def _end(signum: int, frame: FrameType | None) -> None:
    if signum == signal.SIGHUP:
        signal.signal(signum, signal.SIG_IGN)  # see `Held._note`
    raise Interrupted(signum)


def _send_again(unraisable: Any) -> None:
    """Sends a signal again whose exception Python would only print.

    That happens where no exception can pass: in a finalizer, or in what JAX does after every
    garbage collection. The signal would be lost, and the program would go on.
    """
    error = unraisable.exc_value
    if not isinstance(error, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    signum: int = signal.SIGINT
    if isinstance(error, Interrupted):
        signum = error.status - 128
        signal.signal(signum, _end)  # a SIGHUP is being ignored by now
    # A little later, as it would be lost again in here.
    timer = threading.Timer(_AGAIN, os.kill, (os.getpid(), signum))
    timer.daemon = True
    timer.start()


def _heeded(*signums: signal.Signals) -> list[signal.Signals]:
    """Those that end the program: all but a SIGHUP that it was started to ignore."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [s for s in signums if s != signal.SIGHUP or not ignored]


class Held:
    """A context in which a signal is only noted, in `received`. A second one ends the program.

    Args:
      says: what is written to stderr when a signal comes.
    """

    def __init__(
        self, says: str = '\nstopping after this step, with a checkpoint; once more ends at once\n'
    ) -> None:
        self.received: int | None = None
        self._says = says.encode()

    def __enter__(self) -> 'Held':
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # Python's rule
            self._before = {s: signal.signal(s, self._note) for s in _heeded(*SIGNALS)}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if signum == signal.SIGHUP:  # comes twice: from the shell that ends, then the kernel
                return
            os._exit(128 + signum)
        self.received = signum
        # Not logged: the signal may have come while a line was being logged.
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(2, self._says)
