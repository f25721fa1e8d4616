"""Tries hostile input by the thousand and says what broke.

    python -m tests.fuzz.run --cases=20000 --seed=1 [--targets=dicom,rle] [--workers=2]
    python -m tests.fuzz.run --replay=FOLDER        one saved case again, in this process

Each case runs in a worker process with a time limit and a limit of address space. What counts: a
worker that dies, a case that takes too long or too much memory, an exception that is not the
documented one, and a success that an independent reader contradicts. The files of such a case are
saved. The same seed gives the same cases, whatever the number of workers.
"""

import argparse
import collections
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import shutil
import sys
import tempfile
import time

from tests.fuzz import worker

# Limits in seconds of processor time, which do not depend on how busy the machine is. A worker that
# sleeps gets ten times as long by the clock; a decoder's helper process gives up before that.
SECONDS = 60.0  # for one case
_START = 120.0  # for a worker's imports and seeds
_ASLEEP = 10


class Worker:
    """One process and the case it is at."""

    def __init__(self, seed: int, scratch: pathlib.Path, seconds: float):
        self.scratch, self.seconds = scratch, seconds
        context = multiprocessing.get_context('spawn')
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=worker.work, args=(theirs, seed, str(scratch)), daemon=True
        )
        self.process.start()
        theirs.close()
        self.order, self.ready = None, set()
        self.restart_clocks()

    def begin(self, order) -> None:
        """Hands it a case."""
        self.order = order
        self.restart_clocks()
        self.connection.send(order)

    def restart_clocks(self) -> None:
        """What it does from now on counts."""
        self.started, self.busy = time.monotonic(), self._processor_seconds()

    def _processor_seconds(self) -> float:
        try:
            fields = pathlib.Path(f'/proc/{self.process.pid}/stat').read_text().rpartition(')')[2]
        except OSError:  # it has ended
            return 0.0
        return sum(map(int, fields.split()[11:13])) / os.sysconf('SC_CLK_TCK')

    @property
    def late(self) -> bool:
        """Whether its case takes too long, or its imports and seeds do."""
        limit = self.seconds if self.order[0] in self.ready else _START
        asleep = time.monotonic() - self.started > _ASLEEP * limit
        return asleep or self._processor_seconds() - self.busy > limit

    def end(self) -> None:
        """Ends it, at work or not."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def orders(cases: int, names: list[str], first: int = 0):
    """(target, index) of every case, the targets' shares kept and mixed."""
    shares = {name: worker.TARGETS[name][1] or 1.0 for name in names}
    counts = {name: round(cases * share / sum(shares.values())) for name, share in shares.items()}
    for name in sorted(names, key=counts.get, reverse=True):
        yield from ((name, first + index) for index in range(counts[name]))


def fuzz(cases, seed, names, workers, save: pathlib.Path, first=0, seconds=SECONDS):
    """Tries them all.

    Args:
      cases: how many, over all targets.
      seed: of every case.
      names: of the targets.
      workers: processes.
      save: where the files of a case that broke something go, a folder each.
      first: index of the first case of each target.
      seconds: of processor time that one case may take.

    Returns:
      Counter of (target, what happened), and a list of (target, index, kind, text) that broke.
    """
    counts, broken = collections.Counter(), []
    todo = orders(cases, names, first)
    with tempfile.TemporaryDirectory(prefix='fuzz-') as folder:
        scratch = pathlib.Path(folder)
        busy = [Worker(seed, scratch / str(n), seconds) for n in range(workers)]
        for one in busy:
            _next(one, todo)
        while any(one.order for one in busy):
            waiting = [one.connection for one in busy if one.order]
            multiprocessing.connection.wait(waiting, timeout=1.0)
            for n, one in enumerate(busy):
                if not one.order:
                    continue
                if one.connection.poll():
                    name, index = one.order
                    kind, happened = _receive(one)
                elif not one.process.is_alive():
                    (name, index), (kind, happened) = one.order, _receive(one)
                elif one.late:
                    name, index = one.order
                    kind, happened = 'hang', f'more than {seconds:.0f} s'
                else:
                    continue
                if kind == 'ready':
                    one.ready.add(name)
                    one.restart_clocks()
                    continue
                if kind == 'no target':
                    raise RuntimeError(f'the target {name} cannot be made:\n{happened}')
                if kind == 'fine':
                    counts[name, happened] += 1
                else:
                    counts[name, f'BROKEN: {kind}'] += 1
                    broken.append((name, index, kind, happened))
                    _save(save / f'{name}-{seed}-{index}', one, kind, happened)
                    if kind in ('crash', 'hang'):
                        one.end()
                        one = busy[n] = Worker(seed, one.scratch, seconds)
                _next(one, todo)
        for one in busy:
            one.end()
            streams = (one.scratch / 'streams.txt').read_bytes().lower()
            if b'zzname' in streams:
                broken.append(('streams', 0, 'identity', 'a patient is named on the streams'))
                _save(save / f'streams-{seed}', one, 'identity', '')
    return counts, broken


def _receive(one: Worker):
    try:
        return one.connection.recv()
    except (EOFError, ConnectionError):
        one.process.join()
        return 'crash', f'exit status {one.process.exitcode}'


def _next(one: Worker, todo) -> None:
    order = next(todo, None)
    one.order = None
    if order is not None:
        one.begin(order)


def _save(folder: pathlib.Path, one: Worker, kind: str, happened: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(one.scratch / 'case', folder)
    streams = (one.scratch / 'streams.txt').read_bytes()[-4000:].decode(errors='replace')
    (folder / 'what.txt').write_text(f'{kind}\n{happened}\n\n{streams}')


def replay(folder: pathlib.Path) -> None:
    """Tries a saved case here, where a debugger sees it."""
    name = folder.name.split('-')[0]
    case = {
        path.name.replace('%', '/'): path.read_bytes()
        for path in folder.iterdir()
        if path.name != 'what.txt'
    }
    with tempfile.TemporaryDirectory(prefix='fuzz-') as scratch:
        target = worker.make_target(name, pathlib.Path(scratch))
        print(*worker.judge(target, case), sep=': ')


def main() -> int:
    """Exit status 1 when anything broke."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--cases', type=int, default=20_000)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--first', type=int, default=0, help='index of the first case')
    parser.add_argument('--targets', default=','.join(worker.PROGRAM))
    parser.add_argument('--workers', type=int, default=os.cpu_count())
    parser.add_argument('--save', type=pathlib.Path, default=pathlib.Path('fuzz-findings'))
    parser.add_argument('--replay', type=pathlib.Path)
    options = parser.parse_args()
    if options.replay:
        replay(options.replay)
        return 0
    began = time.monotonic()
    names = options.targets.split(',')
    counts, broken = fuzz(
        options.cases, options.seed, names, options.workers, options.save, options.first
    )
    for name in names:
        parts = sorted((h, n) for (t, h), n in counts.items() if t == name)
        print(f'{name:13}{sum(n for _, n in parts):7}  ' + ', '.join(f'{h} {n}' for h, n in parts))
    for name, index, kind, happened in broken:
        print(f'{kind}: {name} {index}: {happened.splitlines()[0]}')
    print(
        f'{sum(counts.values())} cases of seed {options.seed} in '
        f'{time.monotonic() - began:.0f} s, {len(broken)} broke something'
        + (f'; their files are in {options.save}' if broken else '')
    )
    return bool(broken)


if __name__ == '__main__':
    sys.exit(main())
