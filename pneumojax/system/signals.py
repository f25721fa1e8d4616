"""Ctrl-C and SIGTERM: training stops after the current step with a checkpoint, all else at once.

The exit status is the shell's for a signal: 130 after Ctrl-C (SIGINT), 143 after SIGTERM.
"""

import os
import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to end.

    Args:
      signum: the signal.
    """

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.status = 128 + signum  # exit status


def end_on_terminate() -> None:
    """Makes SIGTERM end the program as Ctrl-C does, by an exception."""

    def end(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(signum)

    signal.signal(signal.SIGTERM, end)


class Held:
    """A context in which a signal is only noted, in `received`. A second one ends the program."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> 'Held':
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # Python's rule
            self._before = {s: signal.signal(s, self._note) for s in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + signum)
        self.received = signum
        # Not logged: the signal may have come while a line was being logged.
        os.write(2, b'\nstopping after this step, with a checkpoint; once more ends at once\n')
