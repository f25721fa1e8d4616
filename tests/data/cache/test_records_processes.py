"""The cache and processes: helpers that write it, killed callers, two at once, a full disk."""

import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest

from pneumojax.data.cache import records, shards
from pneumojax.errors import UsageError
from pneumojax.system import locks
from tests.data.cache.records_checks import SIZE, assert_right, copied
from tests.waiting import PATIENCE, wait_for


@pytest.fixture
def by_processes(monkeypatch):
    """Shards of two records, each written by one of two helper processes."""
    monkeypatch.setattr(shards, 'SHARD_SIZE', 2)
    monkeypatch.setattr(shards, 'PROCESSES_FROM', 1)
    monkeypatch.setattr(shards, 'cores', lambda: 2)


def test_processes_write_the_bytes_that_threads_write(tmp_path, drawn, by_processes, monkeypatch):
    starts, start = [], shards.subprocesses.start

    def counted(module, *more, **options):
        starts.append(module)
        return start(module, *more, **options)

    monkeypatch.setattr(shards.subprocesses, 'start', counted)
    one = records.prepare(tmp_path / 'processes', drawn, SIZE, also=(2 * SIZE,))
    assert len(starts) == 2
    monkeypatch.setattr(shards, 'PROCESSES_FROM', 100)
    other = records.prepare(tmp_path / 'threads', drawn, SIZE, also=(2 * SIZE,))
    assert len(starts) == 2
    assert_right(one, drawn)
    contents = [
        {p.relative_to(f.parent): p.read_bytes() for p in f.parent.rglob('*') if p.is_file()}
        for f in (one.folder, other.folder)
    ]
    assert len(contents[0]) == 2 * (4 + 1)
    assert contents[0] == contents[1]


def test_of_several_bad_files_processes_name_the_first(tmp_path, drawn, by_processes):
    examples = [*drawn[:3], *copied(drawn, tmp_path / 'dicom'), *drawn[3:]]
    for bad in examples[3:5]:
        os.truncate(bad.path, 700)
    with pytest.raises(UsageError, match=f'ImageId {examples[3].image_id}: {examples[3].path}'):
        records.prepare(tmp_path / 'cache', examples, SIZE)
    assert list((tmp_path / 'cache').iterdir()) == []


def test_a_helper_that_dies_is_no_end_of_waiting(tmp_path, drawn, by_processes, monkeypatch):
    def start(module, environment, **options):
        return subprocess.Popen([sys.executable, '-c', 'raise SystemExit(7)'], **options)

    monkeypatch.setattr(shards.subprocesses, 'start', start)
    with pytest.raises(UsageError, match=r'ended \(status 7\).*run the same command again'):
        records.prepare(tmp_path, drawn, SIZE)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_under_a_helper(tmp_path, drawn, by_processes, monkeypatch):
    start = shards.subprocesses.start

    def limited(module, *more, **options):
        full = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))  # noqa: E731
        return start(module, *more, preexec_fn=full, **options)

    monkeypatch.setattr(shards.subprocesses, 'start', limited)
    with pytest.raises(UsageError, match=r'config\.data\.cache: cannot write in'):
        records.prepare(tmp_path, drawn, SIZE)
    assert list(tmp_path.iterdir()) == []


def test_large_images_take_turns_over_all_processes(tmp_path):
    turns = [locks.LockFile(tmp_path / 'turn.lock', wait=True) for _ in range(2)]
    held = threading.Event()

    def wait_for_it():
        with turns[1]:
            held.set()

    with turns[0]:
        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        assert not held.wait(0.1)
    assert held.wait(PATIENCE)
    waiting.join()


PROGRAM = """
import gc, resource, sys
from pneumojax.data.cache import records, shards
from pneumojax.data.datasets import example as example_lib, siim
from pneumojax.errors import UsageError
from pneumojax.system import locks
root, cache, mode = sys.argv[1:]
examples = siim.find(root).examples
read = example_lib.read
seen = []
def slow(example):
    seen.append(example)
    if mode == 'hang' and len(seen) > 4:
        print('hanging\\n', end='', flush=True)  # at once: two threads may be here
        sys.stdin.read()
    return read(example)
example_lib.read = slow
if mode == 'processes':
    shards.SHARD_SIZE, shards.PROCESSES_FROM, shards.cores = 2, 1, lambda: 2
    gc.disable()  # Python drops a Ctrl-C that comes in a callback of the collector, and JAX has one
if mode == 'full':
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
if mode == 'race':
    print('ready', flush=True)
    sys.stdin.readline()
try:
    records.prepare(cache, examples, 24)
    print('decoded', len(seen))
except UsageError as e:
    print('refused', e)
"""


def start(drawn, cache, mode):
    root = pathlib.Path(drawn[0].path).parents[3]
    return subprocess.Popen(
        [sys.executable, '-c', PROGRAM, str(root), str(cache), mode],
        cwd=pathlib.Path(__file__).parents[3], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_that_passes_for_a_cache(tmp_path, drawn):
    with start(drawn, tmp_path, 'hang') as process:
        assert process.stdout.readline() == 'hanging\n', process.stderr.read()
        (half,) = tmp_path.iterdir()
        # While it lives, nobody takes its folder away.
        assert_right(records.prepare(tmp_path, drawn[:2], SIZE), drawn[:2])
        assert half.is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert half.is_dir()
    assert not records.cache_folder(tmp_path, drawn, SIZE).exists()
    cache = records.prepare(tmp_path, drawn, SIZE)
    assert_right(cache, drawn)
    assert not half.exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith('.')]


@pytest.mark.slow
def test_two_processes_at_once_both_get_the_right_cache(tmp_path, drawn):
    with start(drawn, tmp_path, 'race') as one, start(drawn, tmp_path, 'race') as other:
        for process in (one, other):
            assert process.stdout.readline() == 'ready\n', process.stderr.read()
        for process in (one, other):
            process.stdin.write('\n')
            process.stdin.flush()
        outputs = [process.communicate()[0] for process in (one, other)]
        assert [one.returncode, other.returncode] == [0, 0]
    assert all(text.startswith('decoded') for text in outputs)
    (folder,) = tmp_path.iterdir()
    before = time.time_ns()
    cache = records.prepare(tmp_path, drawn, SIZE)
    assert (folder / 'manifest.json').stat().st_mtime_ns < before
    assert_right(cache, drawn)


@pytest.mark.slow
@pytest.mark.parametrize('sent', ['SIGKILL', 'SIGINT'])
def test_helpers_end_with_their_caller(tmp_path, drawn, sent):
    with start(drawn, tmp_path, 'processes') as process:
        children = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children')
        wait_for(lambda: len(children.read_text().split()) == 2, process)
        helpers = children.read_text().split()
        if sent == 'SIGKILL':
            process.kill()  # alone
        else:
            os.killpg(process.pid, signal.SIGINT)  # as the terminal does
        errors = process.communicate()[1]
    assert len(helpers) == 2
    wait_for(lambda: not any(map(alive, helpers)))
    if sent == 'SIGINT':
        assert errors.splitlines()[-1] == 'KeyboardInterrupt', errors
        assert list(tmp_path.iterdir()) == []
    assert_right(records.prepare(tmp_path, drawn, SIZE), drawn)
    assert [p.name[0] for p in tmp_path.iterdir()] == ['2']  # of 24px-...


def alive(pid):
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


@pytest.mark.slow
def test_a_full_disk_is_one_line(tmp_path, drawn):
    """A limit on the size of files stands for it: writes fail in the same way."""
    with start(drawn, tmp_path, 'full') as process:
        output, errors = process.communicate()
    assert output.startswith('refused config.data.cache: cannot write'), output + errors
    assert list(tmp_path.iterdir()) == []
