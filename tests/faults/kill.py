"""kill -9 at random moments of a small run, until it has been killed so many times.

    python -m tests.faults.kill --kills=50 --seed=0

Each trial draws its images, decodes them, trains two stages and evaluates them. It is killed some
eight times, in phases that are chosen at random: while drawing, decoding, writing a checkpoint,
training, evaluating, or at any time. Every restart is the same command. What it ends with must be
what an uninterrupted run ends with, bit for bit.
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
import sys
import tempfile
import time

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from pneumojax.runs.run import Run

REPOSITORY = pathlib.Path(__file__).parents[2]
STAGES = ('stage1', 'stage2')
FIRST, LATER = ('draw', 'prepare'), ('train', 'checkpoint', 'evaluate', 'any')
KILLS_PER_TRIAL = 8


class Trial:
    """One run of the tiny configuration in a folder of its own."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.run = folder, folder / 'run'

    def start(self, errors) -> subprocess.Popen:
        """The command; the same at every restart."""
        return subprocess.Popen(
            [
                *(sys.executable, '-m', 'pneumojax.main'),
                f'--config={REPOSITORY}/tests/faults/tiny.py',
                f'--workdir={self.run}',
                f'--config.data.root={self.folder}/images',
                f'--config.data.cache={self.folder}/cache',
            ],
            env=os.environ | {'PYTHONPATH': str(REPOSITORY)}, cwd=self.folder,
            stdout=errors, stderr=errors,
        )  # fmt: skip

    def phase(self) -> str:
        """What a process that works on it is at, as its files tell."""
        if any(self.folder.glob('.*.images')):
            return 'draw'
        if any((self.folder / 'cache').glob('.*px-*')):
            return 'prepare'
        for stage in map(Run, (self.run / name for name in STAGES)):
            if any((stage / 'checkpoints').glob('*tmp*')):
                return 'checkpoint'
            if not stage.exists:
                return 'start'
            if not (stage / 'evaluation.json').exists():
                last = stage.checkpoints.latest_step()
                done, planned = (last and stage.checkpoints.epochs_done(last)) or (0, 1)
                if done == planned:
                    return 'evaluate'
                return 'train' if len(stage.metrics()) else 'start'
        return 'evaluate'

    def results(self) -> dict:
        """All that the run ends with, but for times."""
        found = {}
        for name in STAGES:
            run = Run(self.run / name)
            step = run.checkpoints.latest_step()
            found[name, 'step'] = step
            for item, tree in ocp.load_checkpointables(run.checkpoints.path(step)).items():
                for key, leaf in jax.tree_util.tree_leaves_with_path(tree):
                    found[name, item, jax.tree_util.keystr(key)] = np.asarray(leaf).tobytes()
            for file in ('evaluation.json', 'thresholds.json', 'per_image.csv', 'split.json'):
                found[name, file] = (run / file).read_bytes()
            found[name, 'metrics'] = [
                {k: v for k, v in row.items() if k != 'seconds'} for row in run.metrics()
            ]
        return found


def run_to_end(trial: Trial) -> None:
    with (trial.folder / 'log.txt').open('ab') as log:
        process = trial.start(log)
        if process.wait():
            raise SystemExit((trial.folder / 'log.txt').read_text()[-3000:])


def kill(trial: Trial, target: str, dice: random.Random, sent: int, seconds: float) -> str | None:
    """Starts it, and kills it in a phase.

    Args:
      trial: what to start.
      target: a phase, or 'any'.
      dice: draws the moment.
      sent: the signal.
      seconds: what a whole run takes.

    Returns:
      The phase that it was in; None when it had ended before.
    """
    wait = dice.uniform(0, seconds) if target == 'any' else dice.choice([0, dice.uniform(0, 0.3)])
    with (trial.folder / 'log.txt').open('ab') as log:
        process = trial.start(log)
        deadline = time.monotonic() + 300
        while target != 'any' and trial.phase() != target:
            if process.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(0.002)
        if process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait)
        if process.poll() is not None:
            if process.returncode:
                raise SystemExit((trial.folder / 'log.txt').read_text()[-3000:])
            return None
        phase = trial.phase()
        process.send_signal(sent)
        process.wait()
        expected = (0, -sent) if sent == signal.SIGKILL else (0, 128 + sent)
        # Before the program is at its first line, a signal ends Python itself.
        if process.returncode not in (*expected, -sent):
            raise SystemExit((trial.folder / 'log.txt').read_text()[-3000:])
        return phase


def main(arguments=None) -> dict:
    """Kills so often, and returns what happened. SystemExit when anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--signals', default='KILL', help='of KILL, TERM, INT; drawn each time')
    options = parser.parse_args(arguments)
    signals = [getattr(signal, f'SIG{name}') for name in options.signals.split(',')]
    dice = random.Random(options.seed)
    counts, trials, killed = collections.Counter(), 0, 0
    root = pathlib.Path(tempfile.mkdtemp(prefix='kill-'))
    try:
        whole = Trial(root / 'whole')
        whole.folder.mkdir()
        began = time.monotonic()
        run_to_end(whole)
        seconds, expected = time.monotonic() - began, whole.results()
        print(f'seed {options.seed}; an uninterrupted run takes {seconds:.1f} s', flush=True)
        while killed < options.kills:
            trial = Trial(root / f'trial{trials}')
            trial.folder.mkdir()
            later = [dice.choice(LATER) for _ in range(KILLS_PER_TRIAL - len(FIRST))]
            for target in [*FIRST, *later][: options.kills - killed]:
                phase = kill(trial, target, dice, dice.choice(signals), seconds)
                if phase is None:
                    break
                counts[phase] += 1
                killed += 1
            run_to_end(trial)
            found = trial.results()
            different = [k for k in expected.keys() | found.keys()
                         if expected.get(k) != found.get(k)]  # fmt: skip
            print(f'trial {trials}: {killed} kills so far, '
                  f'{len(different)} of {len(expected)} results differ', flush=True)  # fmt: skip
            if different:
                raise SystemExit(f'{trial.folder}: {sorted(map(str, different))[:10]}')
            shutil.rmtree(trial.folder)
            trials += 1
    finally:
        if sys.exc_info()[0] is None:
            shutil.rmtree(root)
    summary = {'seed': options.seed, 'signals': options.signals, 'kills': killed,
               'runs': trials, 'compared': len(expected), 'phases': dict(counts)}  # fmt: skip
    print(json.dumps(summary), flush=True)
    return summary


if __name__ == '__main__':
    main()
