"""Only the download of ImageNet weights opens an internet socket, even to this machine."""

import os
import pathlib
import shutil
import sys

import pydicom
import pytest
from pydicom import uid

from tests import no_network
from tests.tiny_runs import write_run

REPOSITORY = pathlib.Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not no_network.is_possible(), reason='needs seccomp, of Linux on x86_64 or aarch64'
)


@pytest.fixture
def pneumojax(tmp_path):
    """Runs a program in a home directory of its own, `tmp_path / 'home'`."""
    (tmp_path / 'home').mkdir()
    (tmp_path / 'site').mkdir()
    environment = os.environ | {
        'HOME': str(tmp_path / 'home'), 'PYTHONPATH': str(REPOSITORY), 'JAX_PLATFORMS': 'cpu',
    }  # fmt: skip
    for variable in ('XDG_CACHE_HOME', 'XDG_CONFIG_HOME', 'ORT_DISABLE_TELEMETRY'):
        environment.pop(variable, None)

    def run(*arguments):
        command = [sys.executable, *arguments]
        return no_network.run(command, folder=tmp_path / 'site', env=environment, cwd=tmp_path)

    return run


def kept_at_home(tmp_path):
    """Files in the home directory, but compiled programs and matplotlib's list of fonts."""
    files = [p for p in (tmp_path / 'home').rglob('*') if p.is_file()]
    return [p for p in files if p.parent.name != 'matplotlib' and not p.name.endswith('-cache')]


@pytest.mark.parametrize(
    'code',
    [
        'import socket; socket.socket(socket.AF_INET6)',
        'import socket; socket.getaddrinfo("example.org", 80)',  # a lookup in C
        'import subprocess, sys; c = "import socket; socket.socket()"; '
        'sys.exit(subprocess.call([sys.executable, "-c", c]) == -31 and 7)',
    ],
)
def test_the_guard_sees_sockets_of_python_of_c_and_of_children(pneumojax, code):
    assert pneumojax('-c', code).returncode in (no_network.STATUS, 7)


@pytest.mark.parametrize('name', ['openvino', 'onnxruntime'])
def test_runtimes_send_no_telemetry_and_leave_nothing_at_home(pneumojax, tmp_path, name):
    pytest.importorskip(name)
    script = f'from pneumojax.runtimes import cpu_runtimes as c; print(c.import_{name}().__name__)'
    done = pneumojax('-c', script)
    assert (done.returncode, done.stdout) == (0, f'{name}\n'), done.stderr
    assert not kept_at_home(tmp_path)


@pytest.mark.slow
def test_predict(pneumojax, images, tmp_path):
    """With OpenVINO it exports the network first, which needs JAX and ONNX Runtime."""
    pytest.importorskip('openvino')
    source = tmp_path / 'images'
    source.mkdir()
    for i, syntax in enumerate([uid.RLELossless, uid.JPEG2000Lossless]):  # the second by a helper
        dataset = pydicom.dcmread(images / f'image{i}.dcm')
        dataset.compress(syntax)
        dataset.save_as(source / f'{i}.dcm')
    run = write_run(tmp_path / 'run')
    done = pneumojax(
        '-m', 'pneumojax.main', '--mode=predict', f'--workdir={run.path}', f'--input={source}',
        f'--output={tmp_path}/out', '--runtime=openvino', '--heatmap',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not kept_at_home(tmp_path)


@pytest.mark.slow
def test_train(pneumojax, trained, tmp_path):
    """From images to the last checkpoint, with worker processes that read."""
    root = trained[0].data.root  # the same run, so its steps are compiled already
    (tmp_path / 'config.py').write_text(
        'from tests.conftest import tiny_config\n'
        f'def get_config():\n    return tiny_config({root!r}, {str(tmp_path / "cache")!r})\n'
    )
    # Nor does any of these processes import what lies in the working directory.
    (tmp_path / 'random.py').write_text('open("ran", "w").close()')
    done = pneumojax(
        '-m', 'pneumojax.main', '--config=config.py', '--workdir=run', '--config.data.workers=1'
    )
    assert done.returncode == 0, done.stderr
    assert not kept_at_home(tmp_path)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.slow
def test_evaluate(pneumojax, trained, tmp_path):
    run = shutil.copytree(trained[1].path, tmp_path / 'run')
    done = pneumojax('-m', 'pneumojax.main', '--mode=evaluate', f'--workdir={run}')
    assert done.returncode == 0, done.stderr
    assert (run / 'report.html').is_file()
    assert not kept_at_home(tmp_path)
