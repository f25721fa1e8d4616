"""Several processes, on one machine or many, that train one run together.

Each runs the same program with the same arguments, and `jax.distributed` connects them. They share
the file system of the run directory and the data. Only process 0, the main one, writes small files.
"""

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pneumojax.errors import UsageError
from pneumojax.system.progress import log

Result = TypeVar('Result')
AUTO = 'auto'
HEARTBEAT_TIMEOUT = 30  # seconds of silence after which a process counts as dead
_START_TIMEOUT = 300  # seconds to wait for the others at the start
_BARRIER_TIMEOUT = 7 * 24 * 3600  # seconds; process 0 may decode images, its death ends the wait
_index, _count = 0, 1
_names = itertools.count()


def process_index() -> int:
    """The number of this process, from 0."""
    return _index


def process_count() -> int:
    """How many processes train together."""
    return _count


def is_main() -> bool:
    """Whether this is process 0, which writes what is written only once."""
    return _index == 0


def join(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
    """Connects to the other processes. Call it before JAX touches any device.

    Args:
      coordinator: HOST:PORT of process 0, or 'auto' where the cluster provides it (SLURM, Open
        MPI, Kubernetes, Cloud TPU).
      num_processes, process_id: how many there are, and which one this is; None with 'auto'.

    Raises:
      UsageError: arguments are missing, or the others cannot be reached.
    """
    global _index, _count
    import jax

    where: dict[str, Any] = {}
    if coordinator != AUTO:
        if num_processes is None or process_id is None or not 0 <= process_id < num_processes:
            raise UsageError(
                f'--coordinator={coordinator} needs --num_processes=N and --process_id=0 to N-1; '
                'or --coordinator=auto where the cluster provides them (SLURM, Open MPI, Cloud TPU)'
            )
        port = coordinator.rpartition(':')[2]
        if not (port.isdecimal() and len(port) < 6 and int(port) < 1 << 16):
            raise UsageError(f'--coordinator={coordinator}: expected HOST:PORT of process 0')
        where = {
            'coordinator_address': coordinator,
            'num_processes': num_processes,
            'process_id': process_id,
        }
    try:
        # SIGTERM is handled by `signals`.
        jax.config.update('jax_enable_preemption_service', False)
        jax.distributed.initialize(
            **where,
            initialization_timeout=_START_TIMEOUT,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
            shutdown_timeout_seconds=HEARTBEAT_TIMEOUT,
        )
    except (RuntimeError, ValueError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise UsageError(f'--coordinator={coordinator}: no connection: {reason}') from None
    _index, _count = jax.process_index(), jax.process_count()
    if not is_main():
        log.setLevel(logging.WARNING)  # the main process says it all
    log.info('%d processes with %d devices', _count, jax.device_count())


def wait() -> None:
    """Waits until all processes have come to this point."""
    if _count > 1:
        from orbax.checkpoint import multihost

        multihost.get_barrier_sync_fn()(
            key=f'pneumojax {next(_names)}', timeout_ms=_BARRIER_TIMEOUT * 1000
        )


def main_first(function: Callable[[], Result]) -> Result:
    """Process 0 calls a function first; the others then find on disk what it has made."""
    if not is_main():
        wait()
        return function()
    result = function()
    wait()
    return result


def on_main(function: Callable[[], Result]) -> Result | None:
    """Only process 0 calls a function; the others wait and get None."""
    result = function() if is_main() else None
    wait()
    return result


@contextlib.contextmanager
def reading_alone() -> Iterator[None]:
    """Within the block Orbax reads without waiting for the other processes."""
    if _count == 1:
        yield
        return
    from orbax.checkpoint import v1 as ocp

    options = ocp.options.MultiprocessingOptions(
        primary_host=_index,
        active_processes={_index},
        barrier_sync_key_prefix=f'reader{_index}',
    )
    with ocp.Context(multiprocessing_options=options):
        yield


def require_same(**values: int) -> None:
    """Raises UsageError if the processes do not agree on these numbers."""
    if _count == 1:
        return
    import numpy as np
    from jax.experimental import multihost_utils

    own = np.array([value & 0x7FFFFFFF for value in values.values()], np.int32)
    everyone = multihost_utils.process_allgather(own)
    for name, numbers in zip(values, np.reshape(everyone, (_count, -1)).T, strict=True):
        if len(set(numbers.tolist())) > 1:
            raise UsageError(
                f'the processes do not have the same {name}: start all with the same arguments, '
                'and keep --workdir, config.data.root and config.data.cache on a disk that all of '
                'them see'
            )
