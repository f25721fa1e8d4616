"""Two real processes on 127.0.0.1 against one: the same weights; and what the death of one does."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from pneumojax.errors import UsageError
from pneumojax.runs.run import Run
from pneumojax.system import processes
from tests.waiting import PATIENCE, wait_for

REPOSITORY = pathlib.Path(__file__).parents[2]
STEPS = 33  # three times 90 images in batches of eight

CONFIG = """
from tests.faults import tiny

def get_config():
    config = tiny.get_config()
    config.stages = {}
    config.image_size, config.num_epochs = 32, 3
    config.optimizer.name, config.optimizer.learning_rate = 'sgd', 0.002
    config.averaging.start, config.averaging.every_steps = 0, 3
    config.averaging.bn_examples = 24
    config.model.dtype = 'float64'  # so that rounding can neither hide nor fake a difference
    return config
"""


class Program:
    """One process of a run."""

    def __init__(self, folder, *arguments):
        (folder / 'config.py').write_text(CONFIG)
        self.folder, self.run = folder, Run(folder / 'run')
        environment = os.environ | {
            'PYTHONPATH': str(REPOSITORY), 'JAX_PLATFORMS': 'cpu', 'JAX_ENABLE_X64': '1',
            'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',  # compiles in half the time
        }  # fmt: skip
        self.log = (folder / f'log{len(list(folder.glob("log*")))}.txt').open('w+')
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'pneumojax.main', f'--config={folder}/config.py',
             f'--workdir={self.run.path}', f'--config.data.root={folder}/images',
             f'--config.data.cache={folder}/cache', *arguments],
            cwd=folder, env=environment, stdout=self.log, stderr=self.log,
        )  # fmt: skip

    def end(self):
        """(exit status, all that it said)."""
        try:
            status = self.process.wait(PATIENCE)
        finally:
            self.process.kill()
        self.log.seek(0)
        return status, self.log.read()


def two(folder):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{free.getsockname()[1]}'
    flags = (f'--coordinator={address}', '--num_processes=2')
    return [Program(folder, *flags, f'--process_id={i}') for i in range(2)]


def wait_while_running(condition, programs):
    wait_for(lambda: condition() or any(p.process.poll() is not None for p in programs))
    for program in programs:
        assert program.process.poll() is None, program.end()


def final(run):
    path = run.checkpoints.path(run.checkpoints.latest_step())
    leaves = jax.tree_util.tree_leaves_with_path(ocp.load_checkpointables(path))
    return {jax.tree_util.keystr(key): np.asarray(leaf) for key, leaf in leaves}


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_outlive_a_death(tmp_path):
    alone, pair = tmp_path / 'alone', tmp_path / 'pair'
    alone.mkdir()
    pair.mkdir()
    one = Program(alone, '--profile=1')
    interrupted = two(pair)
    run = interrupted[0].run
    wait_while_running(lambda: run.metrics(), interrupted)
    interrupted[1].process.send_signal(signal.SIGTERM)  # to one: both stop at the same step
    for program in interrupted:
        status, said = program.end()
        assert status == 143, said
    step = run.checkpoints.latest_step()
    assert step == run.metrics()[-1]['step'] < STEPS  # nothing that was reported is lost

    first, second = two(pair)
    wait_while_running(lambda: run.checkpoints.latest_step() > step, (first, second))
    second.process.send_signal(signal.SIGKILL)
    died = time.monotonic()
    status, said = first.end()  # by itself, instead of waiting for the other
    assert status != 0, said
    assert 'another process of this run has ended' in said or 'fatal' in said.lower(), said
    print(f'the other ended {time.monotonic() - died:.1f} s later with status {status}')

    again = two(pair)
    for program in again:
        status, said = program.end()
        assert status == 0, said
    status, said = one.end()
    assert status == 0, said

    expected, found = final(one.run), final(again[0].run)
    assert one.run.checkpoints.latest_step() == again[0].run.checkpoints.latest_step() == STEPS
    assert list((one.run / 'profile').rglob('*.xplane.pb'))
    assert expected.keys() == found.keys()
    assert any('average_batch_stats' in key for key in found)
    for key, leaf in expected.items():
        assert leaf.dtype == found[key].dtype
        np.testing.assert_allclose(found[key], leaf, atol=1e-5, rtol=1e-5, err_msg=key)
    # One line of metrics a step, of one writer, with the loss of the whole batch.
    rows = [[r for r in run.metrics() if r['split'] == 'train'] for run in (one.run, first.run)]
    assert [r['step'] for r in rows[1]] == list(range(1, STEPS + 1))
    for a, b in zip(*rows, strict=True):
        assert a['loss'] == pytest.approx(b['loss'], abs=1e-6)
    looks = [[r for r in run.metrics() if r['split'] == 'validation']
             for run in (one.run, first.run)]  # fmt: skip
    for a, b in zip(*looks, strict=True):  # each image counted once: 30 in padded batches of 8
        assert a == pytest.approx(b, abs=1e-5)


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('host:1', None, None), 'needs --num_processes'),
        (('host:1', 2, 2), '--process_id=0 to N-1'),
        (('host', 2, 0), 'expected HOST:PORT'),
        (('host:65536', 2, 0), 'expected HOST:PORT'),
    ],
)
def test_flags_that_cannot_work_are_named(arguments, words):
    with pytest.raises(UsageError, match=words):
        processes.join(*arguments)


def test_one_process_needs_nobody():
    assert (processes.process_index(), processes.process_count()) == (0, 1)
    assert processes.is_main()
    calls = []
    assert processes.main_first(lambda: calls.append(1) or 'x') == 'x'
    assert processes.on_main(lambda: calls.append(2) or 'y') == 'y'
    assert calls == [1, 2]
    processes.require_same(images=3)
