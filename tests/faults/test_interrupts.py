"""Signals while training: a checkpoint at any step, and the same bits in the end."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from pneumojax import config as config_lib
from pneumojax.runs.run import Run
from pneumojax.system import signals
from pneumojax.training import loop
from tests.conftest import tiny_config
from tests.training.test_loop import assert_same_bits, final_items
from tests.waiting import PATIENCE, wait_for

REPOSITORY = pathlib.Path(__file__).parents[2]


def averaging(config):
    """Equal mean of the weights after each epoch."""


def accumulating(config):
    """Three batches an epoch in updates of two: epochs end half-way through one. And an EMA."""
    config.optimizer.freeze_encoder_epochs = config.num_epochs  # compiled for test_loop.py already
    config.optimizer.accumulate = 2
    config.optimizer.clip_norm = 0.1
    config.averaging.kind = 'ema'


@pytest.fixture(scope='module')
def wholes(trained, phantoms, cache, tmp_path_factory):
    """By kind: a configuration and its uninterrupted run, made once."""
    made = {averaging: trained}

    def whole(kind):
        if kind not in made:
            config = tiny_config(phantoms, cache)
            kind(config)
            run = Run(tmp_path_factory.mktemp('runs') / 'whole')
            loop.train(config, run)
            made[kind] = config, run
        return made[kind]

    return whole


def rows(run):
    return [{k: v for k, v in row.items() if k != 'seconds'} for row in run.metrics()]


def interrupt(monkeypatch, method, at):
    """SIGTERM to this process before the call number `at` of a method of the trainer."""
    original, calls = getattr(loop.Trainer, method), []

    def called(self, *arguments, **options):
        calls.append(None)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments, **options)

    monkeypatch.setattr(loop.Trainer, method, called)


@pytest.mark.parametrize(
    ('kind', 'method', 'at', 'step', 'ended'),
    [
        (averaging, '_stop_if_asked', 8, 5, True),  # in the middle of an epoch
        (averaging, '_report_step', 4, 6, False),  # as an epoch ends, before its validation
        (averaging, '_averaged', 1, 9, False),  # after the last step
        (accumulating, '_stop_if_asked', 8, 5, True),
    ],
)
def test_a_signal_stops_with_a_checkpoint_from_which_the_same_bits_come(
    wholes, tmp_path, monkeypatch, kind, method, at, step, ended
):
    config, expected = wholes(kind)
    run = Run(tmp_path / 'run')
    interrupt(monkeypatch, method, at)
    with pytest.raises(signals.Interrupted) as e:
        loop.train(config, run)
    assert e.value.status == 143
    assert (run.checkpoints.latest_step(), run.checkpoints.details(step)['ended']) == (step, ended)
    monkeypatch.undo()
    loop.train(config, run)
    assert_same_bits(final_items(run, config), final_items(expected, config))
    assert rows(run) == rows(expected)
    assert {p.name for p in run.path.iterdir()} == {p.name for p in expected.path.iterdir()}


@pytest.mark.slow
def test_interrupted_again_and_again(wholes, tmp_path, monkeypatch):
    """Twice of these in the end of the last epoch."""
    config, expected = wholes(averaging)
    run = Run(tmp_path / 'run')
    stops = []
    for method, at in [('_stop_if_asked', 4)] * 5 + [('_averaged', 1)] * 2:
        interrupt(monkeypatch, method, at)
        with pytest.raises(signals.Interrupted):
            loop.train(config, run)
        stops.append(run.checkpoints.latest_step())
        monkeypatch.undo()
    assert stops == sorted(stops)
    assert len(set(stops)) >= 4
    loop.train(config, run)
    assert_same_bits(final_items(run, config), final_items(expected, config))
    assert rows(run) == rows(expected)
    assert not (run / 'replaced').exists()


def test_killed_while_the_last_checkpoint_is_replaced(wholes, tmp_path, monkeypatch):
    config, expected = wholes(averaging)
    config = config.copy_and_resolve_references()
    config.checkpoint.keep = 1
    run = Run(tmp_path / 'run')
    interrupt(monkeypatch, '_averaged', 1)
    with pytest.raises(signals.Interrupted):
        loop.train(config, run)
    monkeypatch.undo()
    run.checkpoints.replace(9)  # and then the process is gone, with the only checkpoint
    assert run.checkpoints.latest_step() is None
    loop.train(config, run)
    assert_same_bits(final_items(run, config), final_items(expected, config))


PROGRAM = """
import sys
from pneumojax import config as config_lib, launch
from pneumojax.runs.run import Run
from pneumojax.training import loop
from absl import flags
def main(argv):
    config = config_lib.from_json(open(argv[1]).read())
    config.num_epochs = 10_000
    loop.train(config, Run(argv[2]))
launch.parse_flags = flags.FLAGS
launch.launch(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize(('sent', 'status'), [('SIGINT', 130), ('SIGTERM', 143), ('SIGHUP', 129)])
def test_the_exit_status_says_so(config, tmp_path, sent, status):
    (tmp_path / 'config.json').write_text(config_lib.to_json(config))
    run = Run(tmp_path / 'run')
    process = subprocess.Popen(
        [sys.executable, '-c', PROGRAM, tmp_path / 'config.json', run.path],
        env=os.environ | {'PYTHONPATH': str(REPOSITORY)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: len(run.metrics()) >= 5 or process.poll() is not None)
    process.send_signal(getattr(signal, sent))
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == status, errors
    assert 'stopping after this step' in errors
    assert errors.splitlines()[-1] == 'pneumojax: interrupted; rerun the same command to continue'
    last = [row for row in run.metrics() if row['split'] == 'train'][-1]
    assert run.checkpoints.latest_step() == last['step']  # nothing that was reported is lost


def ended(program, *before):
    """Exit status and stdout of a Python program."""
    done = subprocess.run(
        [*before, sys.executable, '-c', program],
        env=os.environ | {'PYTHONPATH': str(REPOSITORY)}, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_a_lost_terminal_ends_the_program_like_sigterm():
    program = (
        'import os, signal\n'
        'from pneumojax import launch\n'
        'from absl import flags\n'
        'def main(argv):\n'
        '    os.kill(os.getpid(), signal.SIGHUP)\n'
        '    print("not reached")\n'
        'launch.parse_flags = flags.FLAGS\n'
        'launch.launch(main)\n'
    )
    assert ended(program) == (129, '')
    assert ended(program, 'nohup') == (0, 'not reached\n')


HANGUPS = """
import os, signal
from pneumojax.system import signals
os.close(2)
with signals.Held() as held:
    for _ in range(2):  # one from the shell, one from the kernel
        os.kill(os.getpid(), signal.SIGHUP)
    print(held.received, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    print('not reached', flush=True)
"""


def test_training_notes_that_the_terminal_is_lost_and_only_another_signal_ends_it():
    assert ended(HANGUPS) == (143, '1\n')
    assert ended(HANGUPS.replace('SIGTERM', 'SIGHUP'), 'nohup') == (0, 'None\nnot reached\n')


def test_a_second_signal_ends_at_once():
    program = (
        'import os, signal, time\n'
        'from pneumojax.system import signals\n'
        'with signals.Held() as held:\n'
        '    os.kill(os.getpid(), signal.SIGINT)\n'
        '    assert held.received == signal.SIGINT\n'
        '    os.kill(os.getpid(), signal.SIGINT)\n'
        '    print("not reached", flush=True)\n'
    )
    assert ended(program) == (130, '')


def test_signals_are_the_programs_own_again_afterwards():
    before = [signal.getsignal(s) for s in signals.SIGNALS]
    with signals.Held() as held:
        assert held.received is None
        assert [signal.getsignal(s) for s in signals.SIGNALS] != before
    assert [signal.getsignal(s) for s in signals.SIGNALS] == before
