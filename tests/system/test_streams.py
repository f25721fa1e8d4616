"""What is wrong with the standard streams costs the text, never the work."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.waiting import PATIENCE

REPOSITORY = pathlib.Path(__file__).parents[2]
WORK = r"""
import contextlib, os, sys
from absl import flags
from pneumojax import launch
from pneumojax.system.progress import log, waiting
from tqdm import tqdm

def main(argv):
    with open('result', 'w') as result:
        with waiting('thinking', every=0.01):
            for _ in tqdm(range(3), desc='\u0141\u00f3d\u017a'):
                log.warning('caf\u00e9 \u2026 \udcff')
                print('t\u00eate')
        with contextlib.suppress(OSError):
            os.write(2, b'as a library in C does')
        result.write(str(result.fileno()))
    os.rename('result', 'done')
    return 0

launch.parse_flags = flags.FLAGS
launch.launch(main)
"""


def work(folder, shell='{}', **environment):
    """Runs the program above by a line of shell; returns its status, stdout and stderr."""
    (folder / 'work.py').write_text(WORK)
    command = f'{sys.executable} work.py'
    return subprocess.run(
        ['bash', '-c', shell.format(command)], cwd=folder, timeout=PATIENCE, check=False,
        capture_output=True, env=os.environ | {'PYTHONPATH': str(REPOSITORY)} | environment,
    )  # fmt: skip


@pytest.mark.parametrize(
    'shell',
    ['{} 2>&-', '{} <&- >&- 2>&-', '{} >/dev/full 2>&1', 'set -o pipefail; {} 2>&1 | true'],
)
def test_the_work_goes_on(tmp_path, shell):
    done = work(tmp_path, shell)
    assert done.returncode == 0, done
    assert int((tmp_path / 'done').read_text()) > 2  # the file never stands in for a stream
    assert b'Traceback' not in done.stderr
    assert b'Exception ignored' not in done.stderr


@pytest.mark.parametrize('encoding', ['ascii', 'utf-8', 'latin-1:strict'])
def test_no_encoding_is_too_small(tmp_path, encoding):
    done = work(
        tmp_path, LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0', PYTHONIOENCODING=encoding
    )
    assert (done.returncode, (tmp_path / 'done').exists()) == (0, True), done.stderr
    assert b'Traceback' not in done.stderr
    expected = {'ascii': b't\\xeate', 'utf-8': 't\u00eate'.encode(), 'latin-1:strict': b't\xeate'}
    assert done.stdout.splitlines() == [expected[encoding]] * 3


def test_help_can_be_cut_off(tmp_path):
    done = subprocess.run(
        ['bash', '-c', f'{sys.executable} -m pneumojax.main --help | head -n 1'], cwd=tmp_path,
        env=os.environ | {'PYTHONPATH': str(REPOSITORY)}, capture_output=True, timeout=PATIENCE,
        check=False,
    )  # fmt: skip
    assert done.stdout.count(b'\n') == 1
    assert not done.stderr
