"""Ctrl-C and SIGTERM: training stops between two steps with a checkpoint, all else at once.

The exit status is the shell's for a signal: 130 after Ctrl-C (SIGINT), 143 after SIGTERM.
"""

import os
import signal
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The user, or whoever runs the machine, wants the program to end.

    Args:
      signum: the signal that said so.
    """

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.status = 128 + signum  # exit status


def end_on_terminate() -> None:
    """From now on SIGTERM ends the program as Ctrl-C does, by an exception."""

    def end(signum, frame):
        raise Interrupted(signum)

    signal.signal(signal.SIGTERM, end)


class Held:
    """A context in which a signal is only noted, in `received`; a second one ends at once."""

    def __init__(self):
        self.received: int | None = None

    def __enter__(self):
        self._before = {}
        if threading.current_thread() is threading.main_thread():  # Python's rule
            self._before = {s: signal.signal(s, self._note) for s in SIGNALS}
        return self

    def __exit__(self, *_):
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _note(self, signum, frame):
        if self.received is not None:
            os._exit(128 + signum)
        self.received = signum
        # Not through the log: the signal may have come while a line was being written.
        os.write(2, b'\nstopping after this step, with a checkpoint; once more ends at once\n')
