"""A trace of a few training steps: what the devices and the host did, and when."""

import contextlib
import pathlib
from collections.abc import Callable
from typing import Any

import jax

from pneumojax.system.progress import log

WARM_UP = 3  # steps of a process that are not traced: the first one compiles


class Profile(contextlib.AbstractContextManager):
    """Calls a step, and traces some of its calls with `jax.profiler`.

    The trace begins when all earlier work is done and ends when its last step is. It includes what
    happens between two steps, such as the end of an epoch. It ends early where training does.

    Args:
      folder: each trace makes a folder of its own in it.
      count: steps to trace, after the first `WARM_UP`; 0 for no trace.
    """

    def __init__(self, folder: pathlib.Path, count: int):
        self.folder, self.count = folder, count
        self.calls = 0
        self.tracing = False

    def step(self, function: Callable, *args: Any) -> Any:
        """Returns `function(*args)`."""
        if not self.count:
            return function(*args)
        self.calls += 1
        if self.calls == WARM_UP + 1:
            jax.block_until_ready(args)
            jax.profiler.start_trace(self.folder)
            self.tracing = True
        with jax.profiler.StepTraceAnnotation('train', step_num=self.calls):
            results = function(*args)
        if self.calls == WARM_UP + self.count:
            jax.block_until_ready(results)
            self._end()
        return results

    def _end(self) -> None:
        self.tracing = False
        jax.profiler.stop_trace()
        log.info('a trace of %d steps is in %s', self.calls - WARM_UP, self.folder)

    def __exit__(self, *error: object) -> None:
        if self.tracing:
            self._end()
        elif 0 < self.calls <= WARM_UP:
            log.warning('nothing was traced: training ended after %d steps', self.calls)
