"""kill -9 right before each change of files; `python -m tests.faults.kill` kills every mode."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tests.faults.kill import run
from tests.faults.modes import Place
from tests.tiny_runs import write_run
from tests.waiting import PATIENCE

REPOSITORY = pathlib.Path(__file__).parents[2]

# Every kill of a child that has imported everything already takes milliseconds.
PROGRAM = """
import os, pathlib, signal, sys
from pneumojax.errors import UsageError
from pneumojax.runtimes import exported
from pneumojax.system import atomic
from tests.faults.hook import sitecustomize

root = pathlib.Path(sys.argv[2])

def export(folder):
    exported.refuse_complete(folder / 'a', folder / 'b')
    exported.write({folder / 'a': b'one' * 100, folder / 'b': b'two' * 100})

def convert(folder):
    folder.mkdir(exist_ok=True)
    name = 'more' if (folder / 'out').exists() else 'out'
    with atomic.new_folder(folder / name) as unfinished:
        (unfinished / 'c').mkdir()
        (unfinished / 'c' / 'd').write_bytes(b'three')
    if name == 'more':  # only another folder's making can sweep there
        (folder / name / 'c' / 'd').unlink()

def again(folder):
    try:
        work(folder)
    except UsageError as error:  # all of it is there, and nothing of it is written anew
        assert 'exists already' in str(error)

work = {'export': export, 'convert': convert}[sys.argv[1]]

def seen(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob('*'))
            if p.is_file() and not any(part[0] == '.' for part in p.relative_to(folder).parts)}

work(root / 'whole')
whole = seen(root / 'whole')
for number in range(1, 100):
    folder = root / str(number)
    child = os.fork()
    if not child:
        sitecustomize.install(number, str(root), None)
        work(folder)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    for name, content in (seen(folder) if folder.exists() else {}).items():
        assert whole[name] == content, f'killed before change {number}: {name} is not whole'
    for hidden in folder.glob('.*.*'):
        os.utime(hidden, (0, 0))  # as if that had been long ago
    if seen(folder) != whole:
        work(folder)
    else:
        again(folder)
    assert seen(folder) == whole, f'killed before change {number}: {seen(folder)}'
    assert not any(folder.glob('.*.*')), f'killed before change {number}: {[*folder.iterdir()]}'
    if not status:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
print(number - 1)
"""


@pytest.mark.parametrize('work', ['export', 'convert'])
def test_before_each_change_of_files(tmp_path, work):
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, work, str(tmp_path)],
        env=os.environ | {'PYTHONPATH': str(REPOSITORY)}, capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 6


@pytest.mark.slow
def test_an_export_of_a_run(tmp_path):
    place = Place(tmp_path)
    write_run(place.finished / 'run')
    found = run('export', 1, 0, [signal.SIGKILL], place)
    assert found['kills'] == 1
    assert 'lost' not in found
