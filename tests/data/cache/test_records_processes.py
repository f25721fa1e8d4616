"""The cache and processes: bad files, killed writers, two writers at once, a full disk."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from pneumojax.data.cache import records
from pneumojax.errors import UsageError
from tests.data.cache.records_checks import SIZE, assert_right, copied


def test_of_several_bad_files_the_first_is_named(tmp_path, drawn):
    examples = [*drawn[:3], *copied(drawn, tmp_path / 'dicom'), *drawn[3:]]
    for bad in examples[3:5]:
        os.truncate(bad.path, 700)
    with pytest.raises(UsageError, match=f'ImageId {examples[3].image_id}: {examples[3].path}'):
        records.prepare(tmp_path / 'cache', examples, SIZE)
    assert list((tmp_path / 'cache').iterdir()) == []


PROGRAM = """
import resource, sys
from pneumojax.data.cache import records
from pneumojax.data.datasets import example as example_lib, siim
from pneumojax.errors import UsageError
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
def test_a_full_disk_is_one_line(tmp_path, drawn):
    """A limit on the size of files stands for it: writes fail in the same way."""
    with start(drawn, tmp_path, 'full') as process:
        output, errors = process.communicate()
    assert output.startswith('refused config.data.cache: cannot write'), output + errors
    assert list(tmp_path.iterdir()) == []
