"""Whether a signal asks training to stop; several processes stop at the same step."""

import contextlib
from collections import deque

import jax
import numpy as np

from pneumojax.system import processes, signals
from pneumojax.system.devices import Devices

_DELAY = 2  # calls after which the result of an exchange is read


class StopRequest(contextlib.AbstractContextManager):
    """Holds back signals to end inside its `with` block, and tells whether one has come.

    Of several processes only one may have received the signal. So every call of `received` starts
    an exchange, a collective of one number per device, and reads the result of the exchange two
    calls earlier, for which the host need not wait. All processes call it at the same points of
    training, so they stop at the same one.
    """

    def __init__(self, devices: Devices):
        self._devices = devices
        self._held = signals.Held()
        self._exchanges: deque[jax.Array] = deque()
        axis = devices.axis_name
        self._largest = devices.compile(
            lambda own: jax.lax.pmax(own.max(), axis), 'the exchange of signals'
        )

    def __enter__(self) -> 'StopRequest':
        self._held.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._held.__exit__(*error)

    def received(self) -> int | None:
        """The signal to stop for, or None. Every process calls it equally often."""
        if processes.process_count() == 1:
            return self._held.received
        own = np.full(self._devices.count, self._held.received or 0, np.int32)
        self._exchanges.append(self._largest(self._devices.shard(own)))
        if len(self._exchanges) <= _DELAY:
            return None
        return int(self._devices.unreplicate(self._exchanges.popleft())) or None
