"""The benchmark of everything: it goes on after a failure, stops in time, and repeats nothing."""

import argparse
import gzip
import json
import os
import signal
import stat
import subprocess
import sys

import pytest

from benchmarks import accelerator, predict, profile_steps, run
from pneumojax.runtimes import choose
from tests.waiting import PATIENCE, wait_for

# Stands for Python: notes which benchmark it was asked for, and does as the test wants.
STUB = f"""#!{sys.executable}
import json, os, pathlib, subprocess, sys, time
words = sys.argv[1:]
name = pathlib.Path(words[words.index('--json') + 1])
with open(os.environ['CALLS'], 'a') as file:
    print(name.stem, file=file)
if name.stem == os.environ.get('FAILS'):
    print('first line')
    sys.exit('Boom: no memory')
if name.stem == os.environ.get('HANGS'):
    child = subprocess.Popen(['sleep', '1000'])
    pathlib.Path(os.environ['CALLS'] + '.child').write_text(str(child.pid))
    child.wait()
name.write_text(json.dumps({{
    'rows': [{{'of': name.stem, 'images/s': 123.4}}], 'notes': ['a note of ' + words[2]],
    'machine': {{'accelerators': ['a GPU'], 'processor': 'a CPU', 'cores': 3}},
    'versions': {{'jax': '9.8.7'}},
}}))
"""
ALL = [
    'train_step_512_bfloat16', 'predict_512', 'predict_1024', 'end_to_end', 'profile',
    'train_step_256_bfloat16', 'train_step_1024_bfloat16', 'train_step_512_float32',
    'train_step_256_float32', 'train_step_1024_float32',
]  # fmt: skip


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """Runs the benchmark with stubs; returns (state by part's title, names called, the page)."""
    stub = tmp_path / 'python'
    stub.write_text(STUB)
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(accelerator.sys, 'executable', str(stub))
    calls = tmp_path / 'calls'
    monkeypatch.setenv('CALLS', str(calls))

    def call(*arguments):
        calls.write_text('')
        parser = argparse.ArgumentParser()
        accelerator.add_options(parser)
        options = parser.parse_args([f'--out={tmp_path / "out"}', *arguments])
        report = accelerator.measure(options)
        page = (tmp_path / 'out' / 'accelerator.md').read_text()
        return [row['state'] for row in report.rows], calls.read_text().split(), page

    return call


def test_every_part_is_measured_once(measure):
    states, called, page = measure()
    assert states == ['measured'] * len(ALL)
    assert called == ALL
    assert page.count('| 123 ') == len(ALL)
    assert 'a note of train_step' in page
    assert 'a GPU; a CPU, 3 cores; jax 9.8.7' in page
    assert 'python -m benchmarks.run end_to_end --images 1000' in page
    assert '--work DIR/work' in page
    states, called, again = measure()
    assert states == ['measured before'] * len(ALL)
    assert called == []
    assert again.partition('## ')[2] == page.partition('## ')[2]


def test_a_failure_is_named_and_tried_again(measure, monkeypatch):
    monkeypatch.setenv('FAILS', 'predict_512')
    states, called, page = measure()
    assert called == ALL
    assert states[1] == 'failed, see predict_512.log: Boom: no memory'
    assert states[:1] + states[2:] == ['measured'] * (len(ALL) - 1)
    assert page.count('Boom: no memory') == 2  # in the summary and where its table would be
    monkeypatch.delenv('FAILS')
    states, called, page = measure()
    assert called == ['predict_512']
    assert states == ['measured before', 'measured', *['measured before'] * (len(ALL) - 2)]
    assert 'Boom' not in page


def test_a_part_that_takes_too_long_ends_with_all_it_started(measure, tmp_path, monkeypatch):
    child = tmp_path / 'calls.child'

    class Impatient(subprocess.Popen):
        """Whose time is over as soon as the part that hangs has started a process of its own."""

        def wait(self, timeout=None):
            if timeout is None or 'predict_512' not in self.args[-1]:
                return super().wait(timeout)
            wait_for(lambda: child.exists() and child.read_text())
            raise subprocess.TimeoutExpired(self.args, timeout)

    monkeypatch.setattr(accelerator.subprocess, 'Popen', Impatient)
    monkeypatch.setenv('HANGS', 'predict_512')
    states, called, _ = measure()
    assert called == ALL
    assert states[1].startswith('failed: not done in the 40 min')
    wait_for(lambda: not is_running(int(child.read_text())))


def test_a_signal_ends_the_part_that_runs_with_all_it_started(tmp_path):
    stub, calls = tmp_path / 'python', tmp_path / 'calls'
    stub.write_text(STUB)
    stub.chmod(stub.stat().st_mode | stat.S_IXUSR)
    start = (
        'import runpy, sys\n'
        f'sys.executable = {str(stub)!r}\n'
        f'sys.argv = ["run", "accelerator", "--out={tmp_path}/out"]\n'
        'runpy.run_module("benchmarks.run", run_name="__main__")\n'
    )
    environment = {**os.environ, 'CALLS': str(calls), 'HANGS': ALL[0]}
    with subprocess.Popen([sys.executable, '-c', start], env=environment) as process:
        child = tmp_path / 'calls.child'
        wait_for(lambda: child.exists() and child.read_text(), process)
        process.terminate()
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    wait_for(lambda: not is_running(int(child.read_text())))
    assert calls.read_text().split() == ALL[:1]


def is_running(pid):
    """Whether a process exists and is no zombie."""
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


def test_parts_that_the_time_is_too_short_for_say_so(measure):
    states, called, page = measure('--minutes=0')
    assert called == []
    assert set(states) == {'skipped: 0 s left; run the same command again'}
    assert page.count('skipped: 0 s left') == 2 * len(ALL)


def test_the_second_size_and_the_first_dtype_come_first(measure):
    _, called, _ = measure('--sizes', '8', '16', '--dtypes', 'float32')
    assert called == [
        'train_step_16_float32', 'predict_16', 'end_to_end', 'profile', 'train_step_8_float32'
    ]  # fmt: skip


def test_a_single_size_is_enough(measure):
    _, called, _ = measure('--sizes', '32')
    assert called == [
        'train_step_32_bfloat16', 'predict_32', 'end_to_end', 'profile', 'train_step_32_float32'
    ]  # fmt: skip


def test_what_an_unfinished_part_left_is_not_continued(measure, tmp_path):
    work = tmp_path / 'out' / 'work'
    for name in ('siim', 'stage1', 'cache', 'profiled'):
        (work / name).mkdir(parents=True)
    measure()
    assert [path.name for path in work.iterdir()] == ['siim']


# --- What it adds to other benchmarks ------------------------------------------------------------


def test_the_options_it_passes_on_exist(tmp_path):
    """Each part's command line is one that its benchmark accepts."""
    parser = argparse.ArgumentParser()
    accelerator.add_options(parser)
    options = parser.parse_args([f'--out={tmp_path}'])
    for part in accelerator.parts(options, tmp_path):
        assert part.benchmark in run.BENCHMARKS
        theirs = argparse.ArgumentParser(exit_on_error=False)
        module = __import__(f'benchmarks.{part.benchmark}', fromlist=['add_options'])
        module.add_options(theirs)
        theirs.parse_args(part.arguments)


def test_precisions_of_jax_are_measured_on_accelerators(monkeypatch):
    for there, expected in (
        (True, [('jax', 'auto'), ('jax', 'bfloat16')]),
        (False, []),
    ):
        monkeypatch.setattr(choose, 'has_accelerator', lambda there=there: there)
        assert predict.available(predict.WAYS[1:], 'jax') == expected


def test_a_trace_is_summed_by_kind():
    def named(pid, name, tid=None):
        what = 'process_name' if tid is None else 'thread_name'
        return {'ph': 'M', 'name': what, 'pid': pid, 'tid': tid, 'args': {'name': name}}

    def event(name, ts, dur, pid=1, tid=2, **args):
        return {'ph': 'X', 'name': name, 'pid': pid, 'tid': tid, 'ts': ts, 'dur': dur, 'args': args}

    events = [
        named(1, '/device:GPU:0'), named(1, 'XLA Ops', 2), named(1, 'Steps', 3),
        named(7, '/host:CPU'), named(7, 'XLA Ops', 2),
        event('fusion.12', 1000, 300), event('fusion_3', 1400, 100), event('fusion', 1300, 50),
        event('convolution.1', 1600, 400, hlo_category='convolution fusion'),
        event('step', 0, 99_999, tid=3), event('work', 0, 99_999, pid=7),
    ]  # fmt: skip
    rows = profile_steps.operations(events)
    assert [(row['kind'], row['calls']) for row in rows] == [
        ('fusion', 3), ('convolution fusion', 1), ('no operation', None)
    ]  # fmt: skip
    assert [row['ms'] for row in rows] == pytest.approx([0.45, 0.4, 0.15])
    assert [row['share'] for row in rows] == pytest.approx([0.45, 0.4, 0.15])
    assert profile_steps.operations(events[3:5]) == []


def test_streams_of_a_gpu_stand_in_for_its_operations():
    """Kernels of two streams that overlap, and one within another: time without any counts once."""
    events = [
        {'ph': 'M', 'name': 'process_name', 'pid': 1, 'args': {'name': '/device:GPU:0'}},
        *({'ph': 'M', 'name': 'thread_name', 'pid': 1, 'tid': tid,
           'args': {'name': f'Stream #{tid}(Compute)'}} for tid in (1, 2)),
        *({'ph': 'X', 'name': 'kernel', 'pid': 1, 'tid': tid, 'ts': ts, 'dur': dur,
           'args': {'hlo_op': op}}
          for tid, ts, dur, op in (
              (1, 0, 4000, 'a.1'), (2, 2000, 4000, 'b.2'), (2, 3000, 1000, 'c'),
              (1, 9000, 1000, 'a'),
          )),
    ]  # fmt: skip
    rows = {row['kind']: (row['calls'], row['ms']) for row in profile_steps.operations(events)}
    assert rows == {'a': (2, 5), 'b': (1, 4), 'c': (1, 1), 'no operation': (None, 3)}


def test_rare_kinds_of_a_trace_are_one_row():
    events = [
        {'ph': 'M', 'name': 'process_name', 'pid': 1, 'args': {'name': '/device:TPU:0'}},
        {'ph': 'M', 'name': 'thread_name', 'pid': 1, 'tid': 1, 'args': {'name': 'XLA Ops'}},
        *({'ph': 'X', 'name': f'kind{letter}', 'pid': 1, 'tid': 1, 'ts': i, 'dur': 1}
          for i, letter in enumerate('abcdefghijklmnopqrst')),
    ]  # fmt: skip
    rows = profile_steps.operations(events)
    assert len(rows) == profile_steps.ROWS + 2
    assert (rows[-2]['kind'], rows[-2]['calls']) == ('5 other kinds', 5)
    assert sum(row['share'] for row in rows) == pytest.approx(1)


@pytest.mark.slow
def test_a_dry_run_fills_every_table(tmp_path, monkeypatch):
    """The whole, at toy size on a CPU, in the processes of its parts."""
    monkeypatch.setenv('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')  # compiles in half the time
    status = run.main([
        'accelerator', f'--out={tmp_path}', f'--json={tmp_path / "all.json"}', '--minutes=60',
        '--sizes', '32', '--width', '4', '--batch-size', '2', '--steps', '1', '--repeats', '1',
        '--images', '60', '--drawn-size', '64', '--dtypes', 'bfloat16',
    ])  # fmt: skip
    assert status == 0
    rows = json.loads((tmp_path / 'all.json').read_text())['rows']
    assert {row['state'] for row in rows} == {'measured'}, rows
    page = (tmp_path / 'accelerator.md').read_text()
    assert str(tmp_path) not in page
    assert 'stage 2 at 32' in page
    for name in ('train_step_32_bfloat16', 'predict_32', 'end_to_end'):
        assert json.loads((tmp_path / f'{name}.json').read_text())['rows'], name
    (trace,) = (tmp_path / 'work' / 'profiled').rglob('*.trace.json.gz')
    assert gzip.decompress(trace.read_bytes())
