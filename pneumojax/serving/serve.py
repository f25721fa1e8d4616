"""The node: starts its parts, watches them, and lets them finish what is at hand when it ends."""

import contextlib
import functools
import os
import pathlib
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pneumojax.data.files.silence import silence_libraries
from pneumojax.errors import UsageError
from pneumojax.prediction.ensemble import Ensemble
from pneumojax.prediction.options import Options
from pneumojax.prediction.outputs import DICOM
from pneumojax.runs.run import Run
from pneumojax.serving import events
from pneumojax.serving import settings as settings_lib
from pneumojax.serving.health import Figures, HealthServer
from pneumojax.serving.inbox import Inbox
from pneumojax.serving.keep import Keeper
from pneumojax.serving.queue import Queue
from pneumojax.serving.work import Worker
from pneumojax.system import atomic, locks, signals

QUEUE, INBOX, RESULTS, LOCK = 'queue.sqlite', 'inbox', 'results', '.lock'
FILES = {
    QUEUE: 'The queue: which image is where; with `-wal` and `-shm` beside it while it is used.',
    f'{INBOX}/': 'Received images, until their results are sent and `keep_hours` are over.',
    f'{RESULTS}/': 'Their results, as long.',
    LOCK: 'Which process serves, for as long as it does.',
}
_IDLE = 0.2  # seconds between two looks for something to do
_AFTER_DISK_ERROR = 5.0


def serve(runs: Sequence[Run], node: str, output: str, options: Options) -> int:
    """Serves until a signal ends it.

    Args:
      runs: evaluated runs that predict together.
      node: file of settings.
      output: folder of the node's state; new, empty or of a node before.
      options: which results are made.

    Returns:
      Exit status: 0 after a signal, when what was at hand is finished; 1 when a part failed.

    Raises:
      UsageError: settings, runs or folder cannot be used, or another node serves from it.
    """
    settings = settings_lib.read(node)
    _require_libraries()
    if not any(options.writes(name) for name in DICOM):
        raise UsageError('--mode=serve sends DICOM files: drop --seg=none, or name some --outputs')
    with (
        events.structured(), silence_libraries(), _state_folder(pathlib.Path(output)) as folder,
        Queue(folder / QUEUE) as queue, signals.Held(_ENDING) as held,
    ):  # fmt: skip
        load = functools.partial(Ensemble, runs, options.runtime, options.precision, images=1)
        return _Node(settings, queue, folder).run(load, options, held)


_ENDING = '{"event": "ending after what is at hand; once more ends at once"}\n'


def dead_letters(output: str, action: str) -> int:
    """Lists the dead letters of a node, which may be running, or has them tried again.

    Args:
      output: folder of the node's state.
      action: 'list' or 'retry'.

    Returns:
      Exit status 0.

    Raises:
      UsageError: no node has served from the folder.
    """
    folder = pathlib.Path(output)
    if not (folder / QUEUE).is_file():
        raise UsageError(f'--output: {folder} holds no {QUEUE}; name the folder of a node')
    with Queue(folder / QUEUE) as queue:
        if action == 'retry':
            print(f'{queue.retry_dead()} dead letters are tried again')
            return 0
        for one in queue.dead():
            what = f'to {one.destination}' if one.destination else 'not predicted'
            path = folder / INBOX / f'{one.image}.dcm'
            print(f'{one.kind} {one.number}, {what}, {one.tries} attempts: {one.reason}: {path}')
    return 0


def _require_libraries() -> None:
    try:
        import dicomweb_client  # noqa: F401
        import pynetdicom  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"--mode=serve needs {error.name}: pip install 'pneumojax[node]'"
        ) from None


@contextlib.contextmanager
def _state_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Makes or takes up the folder, which no other process serves from meanwhile."""
    before = os.umask(0o077)  # images name patients
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / QUEUE).exists() and {e.name for e in folder.iterdir()} - {LOCK}:
            raise UsageError(
                f'--output: {folder} is not empty and holds no {QUEUE}; give a new or empty folder'
            )
        with locks.LockFile(folder / LOCK):
            for name in (INBOX, RESULTS):
                (folder / name).mkdir(exist_ok=True)
            for path in (folder / INBOX, *(folder / RESULTS / name for name in DICOM)):
                atomic.sweep(path)
            yield folder
    except OSError as error:
        raise UsageError(
            f'--output: cannot write in {error.filename or folder}: {error.strerror}'
        ) from None
    finally:
        os.umask(before)


def _warm_up(ensemble: Ensemble) -> None:
    """Compiles the network and imports what is imported late: the first image need not wait."""
    from pneumojax.prediction import seg  # noqa: F401

    ensemble.predict({size: np.zeros((1, size, size), np.uint8) for size in ensemble.sizes})


class _Part(threading.Thread):
    """Calls a step again and again; one that finds nothing to do is followed by a pause."""

    def __init__(self, name: str, step: Callable[[], bool], ending: threading.Event):
        super().__init__(name=name, daemon=True)
        self._step, self._ending = step, ending

    def run(self) -> None:
        while not self._ending.is_set():
            try:
                if not self._step():
                    self._ending.wait(_IDLE)
            except (OSError, sqlite3.OperationalError) as error:  # a full disk, as a rule
                events.problem('disk error', part=self.name, error=type(error).__name__)
                self._ending.wait(_AFTER_DISK_ERROR)
            except Exception as error:
                # Where it happened, and not its message, which may quote an image.
                where = traceback.extract_tb(error.__traceback__)[-3:]
                lines = [f'{os.path.basename(f.filename)}:{f.lineno}' for f in where]
                events.problem('part failed', part=self.name, error=type(error).__name__, at=lines)
                return


class _Node:
    def __init__(self, settings: settings_lib.Settings, queue: Queue, folder: pathlib.Path):
        from pneumojax.serving.poll import Poller  # they need the libraries of the extra
        from pneumojax.serving.receive import Receiver
        from pneumojax.serving.send import Sender

        node = settings.node
        self._settings, self._queue, self._folder = settings, queue, folder
        self._figures, self._ending = Figures(), threading.Event()
        self._results = folder / RESULTS
        self._inbox = Inbox(folder / INBOX, queue, node.free_mb << 20)
        self._is_loaded, self._started = False, time.time()
        is_ending = self._ending.is_set
        self._senders = {
            one.name: Sender(one, node.ae_title, queue, self._results, self._figures, is_ending)
            for one in settings.send
        }
        self._poller = settings.poll and Poller(
            settings.poll, queue, self._inbox, self._figures, is_ending
        )
        self._keeper = Keeper(node, queue, self._inbox, self._results)
        self._parts: list[_Part] = []
        self._health = HealthServer(settings.health, self._problems, self._obstacles, self._metrics)
        self._receiver = settings.receive and Receiver(
            settings.receive, node.ae_title, self._inbox, self._figures
        )

    def run(self, load: Callable[[], Ensemble], options: Options, held: signals.Held) -> int:
        """Runs all parts; images are taken up while the network is being loaded."""
        for number in self._queue.bury_unfinished(self._settings.node.tries):
            events.problem('dead letter', image=number, why='the process ended each time')
        for (kind, name, state), count in self._queue.counts().items():
            if (kind, state) == ('delivery', 'waiting') and name not in self._senders:
                events.problem('no such destination any more', destination=name, results=count)
        self._inbox.adopt()
        self._health.start()
        if self._receiver:
            self._receiver.start()
        events.event(
            'started', health_port=self._health.port,
            dicom_port=self._receiver.port if self._receiver else None,
        )  # fmt: skip
        try:
            self._start('keep', self._keeper.step)
            for name, sender in self._senders.items():
                self._start(f'send {name}', sender.step)
            if self._poller:
                self._start('poll', self._poller.step)
            if held.received is None:
                ensemble = load()
                _warm_up(ensemble)
                worker = Worker(
                    self._queue, self._inbox, self._results, ensemble, options,
                    self._settings.node, list(self._senders), self._figures,
                )  # fmt: skip
                self._start('predict', worker.step)
                self._is_loaded = True
                events.event('ready')
            while held.received is None and not self._problems():
                time.sleep(_IDLE)
        finally:
            failed = self._problems()
            self._stop()
        events.event('ended')
        return 1 if failed else 0

    def _start(self, name: str, step: Callable[[], bool]) -> None:
        self._parts.append(_Part(name, step, self._ending))
        self._parts[-1].start()

    def _stop(self) -> None:
        self._ending.set()
        if self._receiver:
            self._receiver.stop()
        for part in self._parts:
            part.join()
        self._health.stop()

    def _problems(self) -> list[str]:
        found = [f'{part.name} has failed' for part in self._parts if not part.is_alive()]
        if self._receiver and not self._receiver.is_alive:
            found.append('receive has failed')
        return found

    def _obstacles(self) -> list[str]:
        found = [] if self._is_loaded else ['the network is being loaded']
        if self._ending.is_set():
            found.append('the node is ending')
        try:
            self._inbox.check_space()
        except OSError as error:
            found.append(f'the disk: {error.strerror}')
        return found

    def _metrics(self) -> str:
        oldest = self._queue.oldest_waiting()
        gauges = {
            'ready': float(not self._obstacles()),
            'up_seconds': time.time() - self._started,
            'oldest_waiting_seconds': max(0.0, time.time() - oldest) if oldest else 0.0,
        }
        reachable = {name: sender.is_reachable for name, sender in self._senders.items()}
        if self._poller:
            reachable['poll'] = self._poller.is_reachable
        return self._figures.text(gauges, reachable, self._queue.counts())
