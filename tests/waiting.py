"""How tests wait for other processes: as long as a busy machine takes."""

import subprocess
import time
from collections.abc import Callable

PATIENCE = 1200  # seconds after which something hangs, on the slowest machine


def wait_for(condition: Callable[[], object], *processes: subprocess.Popen) -> None:
    """Returns when a condition holds. An error when it never does, or when a process has ended."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        ended = [process.args for process in processes if process.poll() is not None]
        assert not ended or condition(), f'ended: {ended}'
        assert time.monotonic() < deadline, f'not within {PATIENCE} s'
        time.sleep(0.005)
