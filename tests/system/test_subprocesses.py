"""Code that lies in the working directory, beside images from strangers, never runs."""

import os
import pathlib
import subprocess
import sys

import pydicom
import pytest
from pydicom import uid

from pneumojax.system import subprocesses
from tests.tiny_runs import write_run
from tests.waiting import PATIENCE

REPOSITORY = pathlib.Path(__file__).parents[2]
NAMES = ('absl', 'cv2', 'jax', 'json', 'multiprocessing', 'numpy', 'pkgutil', 'pydicom', 'random',
         're', 'typing')  # fmt: skip


@pytest.fixture
def poisoned(tmp_path):
    """A folder with modules that leave a file `ran_NAME` beside it when they are imported."""
    folder = tmp_path / 'poisoned'
    folder.mkdir()
    for name in NAMES:
        trap = tmp_path / f'ran_{name}'
        (folder / f'{name}.py').write_text(f'open({str(trap)!r}, "w").close()\nraise ImportError')
    yield folder
    assert not [path.name for path in tmp_path.glob('ran_*')]


@pytest.mark.parametrize('path', ['', os.pathsep, f'{os.pathsep}/nowhere'])
def test_a_helper_imports_nothing_from_there(poisoned, monkeypatch, path):
    monkeypatch.setenv('PYTHONPATH', path)  # an empty entry means the working directory
    helper = subprocesses.start(
        'pneumojax.data.files.sandbox_process', cwd=poisoned, stdin=subprocess.DEVNULL
    )
    assert helper.wait(PATIENCE) == 0


def pneumojax(folder, *arguments):
    environment = os.environ | {'PYTHONPATH': str(REPOSITORY), 'JAX_PLATFORMS': 'cpu'}
    return subprocess.run(
        [sys.executable, '-m', 'pneumojax.main', *arguments], cwd=folder, env=environment,
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def test_the_program_imports_nothing_from_there(poisoned):
    done = pneumojax(poisoned, '--mode=predict', '--input=x', '--output=y', '--workdir=z')
    assert (done.returncode, done.stderr.count('\n')) == (2, 1), done.stderr


@pytest.mark.slow
def test_predict_with_helpers_imports_nothing_from_there(poisoned, images):
    dataset = pydicom.dcmread(images / 'image0.dcm')
    dataset.compress(uid.JPEG2000Lossless)
    dataset.save_as(poisoned / 'image.dcm')
    run = write_run(poisoned / 'run')
    done = pneumojax(
        poisoned, '--mode=predict', f'--workdir={run.path}', '--input=image.dcm', '--output=masks',
        '--runtime=jax',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
