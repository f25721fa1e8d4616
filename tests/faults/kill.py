"""kill -9 in every mode of the program, until it has been killed so many times.

    python -m tests.faults.kill --kills=80 --seed=0 [--modes=folds,export,convert]

Each trial starts one mode on drawn images and kills it several times: at a random moment of what
the whole takes, or right before it makes, renames, links or removes a file for the Nth time, which
is drawn as well. Killed is the main process alone, or with the processes that it has started. Every
restart is the same command. After each kill no process may be left over, and what stands under its
final name must be whole; the last restart must end with the files, bit for bit, of a run that
nothing interrupted, and with no others.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time

from tests.faults.modes import MODES, Place, is_unfinished

_SURVIVORS_END = 60.0  # seconds in which processes notice that the one they work for has ended


class Lost(AssertionError):
    """Something is not as it must be after a kill."""


class Trials:
    """Kills one mode, again and again.

    Args:
      place: where.
      name: of the mode.
      signals: one is drawn each time.
    """

    def __init__(self, place: Place, name: str, signals: list[int]):
        self.place, self.mode, self.signals = place, MODES[name], signals
        self.counts: collections.Counter[str] = collections.Counter()
        place.begin(self.mode)
        place.run(self.mode.arguments)  # compiles
        self.expected, self.files = place.results(self.mode), place.files(self.mode)
        place.begin(self.mode)
        listed = place.root / 'changes.txt'
        listed.unlink(missing_ok=True)
        at = f'0 {place.folder}'
        self.seconds = place.run(self.mode.arguments, FAULT_AT=at, FAULT_LIST=str(listed))
        self.changes = listed.read_text().splitlines()
        self.compare('a second run that nothing interrupted')

    @property
    def killed(self) -> int:
        """How often it was killed."""
        return sum(count for kind, count in self.counts.items() if kind.startswith('at '))

    def trial(self, dice: random.Random, kills: int) -> None:
        """One start from the beginning, up to so many kills, and the end."""
        self.counts['trials'] += 1
        self.place.begin(self.mode)
        for _ in range(min(kills, dice.randint(1, self.mode.kills))):
            if not self.kill(dice):
                break
        self.end()

    def kill(self, dice: random.Random) -> bool:
        """Starts it, and kills it; False when it had ended before."""
        number, whole_group = dice.randint(1, len(self.changes)), dice.random() < 0.5
        sent, wait = dice.choice(self.signals), dice.uniform(0, self.seconds)
        if dice.random() < 0.5 and sent == signal.SIGKILL:
            process = self.place.start(
                self.mode.arguments, FAULT_AT=f'{number} {self.place.folder}'
            )
            process.wait(self.limit)
            kind = 'at a change of files'
        else:
            process = self.place.start(self.mode.arguments)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait)
            if process.poll() is None:
                (os.killpg if whole_group else os.kill)(process.pid, sent)
                process.wait(self.limit)
            kind = f'at any time, {"group" if whole_group else "main process"}'
        self.survivors(process.pid)
        if process.returncode in (-sent, 128 + sent):
            self.counts[kind] += 1
            self.look()
            return True
        if not self.is_end(process.returncode):
            raise Lost(f'status {process.returncode}: {self.place.last_lines()}')
        return False

    @property
    def limit(self) -> float:
        """Seconds after which it hangs."""
        return 300 + 20 * self.seconds

    def is_end(self, status: int) -> bool:
        """Whether it has done its work, now or before."""
        refused = 'exists' in self.place.last_lines() and status == 2
        return status == 0 or (self.mode.once and refused)

    def end(self) -> None:
        """The same command again, to the end."""
        try:
            status = self.place.start(self.mode.arguments).wait(self.limit)
        except subprocess.TimeoutExpired:
            raise Lost('it hangs') from None
        if not self.is_end(status):
            raise Lost(f'status {status}: {self.place.last_lines()}')
        if 'Traceback' in self.place.last_lines():
            raise Lost(f'a traceback: {self.place.last_lines()}')
        self.compare('the end')

    def compare(self, when: str) -> None:
        """Results and files are those of the first run."""
        found = self.place.results(self.mode)
        for name in [name for name in found if is_unfinished(name)]:
            del found[name]
            self.counts['left over'] += 1
        different = [k for k in self.expected.keys() | found.keys()
                     if self.expected.get(k) != found.get(k)]  # fmt: skip
        if different:
            raise Lost(f'{when}: other results: {sorted(different)[:10]}')
        other = {n for n in self.place.files(self.mode) ^ self.files if not is_unfinished(n)}
        if other:
            raise Lost(f'{when}: other files: {sorted(other)[:10]}')

    def look(self) -> None:
        """What stands under its final name is whole."""
        for name, content in self.place.results(self.mode, growing=False).items():
            if name not in self.expected:
                raise Lost(f'killed: {name} should never be seen')
            if content != self.expected[name]:
                raise Lost(f'killed: {name} is not whole')

    def survivors(self, session: int) -> None:
        """Waits for the processes that the killed one had started."""
        deadline = time.monotonic() + _SURVIVORS_END
        while left := _of_session(session):
            if time.monotonic() > deadline:
                raise Lost(f'still there: {left}')
            time.sleep(0.05)


def _of_session(session: int) -> list[str]:
    found = []
    for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(')')[2].split()
            if int(fields[3]) == session and fields[0] != 'Z':
                found.append((path.parent / 'cmdline').read_text().replace('\0', ' '))
    return found


def run(mode: str, kills: int, seed: int, signals: list[int], place: Place) -> dict:
    """So many kills of one mode; what happened."""
    trials, dice = Trials(place, mode, signals), random.Random(f'{seed} {mode}')
    print(f'{mode}: {trials.seconds:.1f} s, {len(trials.changes)} changes of files, '
          f'{len(trials.expected)} results to compare', flush=True)  # fmt: skip
    while trials.killed < kills:
        try:
            trials.trial(dice, kills - trials.killed)
        except Lost as error:
            trials.counts['lost'] += 1
            kept = place.root / f'lost-{mode}-{seed}-{trials.counts["lost"]}'
            place.folder.rename(kept)
            print(f'LOST: {mode}, seed {seed}: {error}\n  its files are in {kept}', flush=True)
    return {'mode': mode, 'kills': trials.killed, 'changes': len(trials.changes),
            'compared': len(trials.expected), **trials.counts}  # fmt: skip


def main(arguments=None) -> list[dict]:
    """Kills so often, and returns what happened. SystemExit when anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=80, help='over all modes')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--signals', default='KILL', help='of KILL, TERM, INT; drawn each time')
    parser.add_argument('--modes', default=','.join(MODES))
    parser.add_argument('--root', type=pathlib.Path, help='kept for the next time; default: none')
    options = parser.parse_args(arguments)
    signals = [getattr(signal, f'SIG{name}') for name in options.signals.split(',')]
    names = options.modes.split(',')
    root = options.root or pathlib.Path(tempfile.mkdtemp(prefix='kill-'))
    place = Place(root)
    place.make_needs()
    summaries = []
    for number, name in enumerate(names):
        share = options.kills // len(names) + (number < options.kills % len(names))
        summaries.append(run(name, share, options.seed, signals, place))
        print(json.dumps(summaries[-1]), flush=True)
    if any(summary.get('lost') for summary in summaries):
        raise SystemExit(f'something was lost; see {root}')
    if not options.root:
        shutil.rmtree(root)
    return summaries


if __name__ == '__main__':
    main()
