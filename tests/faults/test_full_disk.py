"""A disk that gets full while a network is exported or converted: said in one line, nothing left.

`python -m tests.faults.full_disk` tries every mode of the program.
"""

import subprocess

import numpy as np
import pytest

from pneumojax.errors import UsageError
from pneumojax.models import convert, pretrained
from pneumojax.models.unet import UNet
from pneumojax.runs import checkpoints
from pneumojax.runs.run import Run
from pneumojax.runtimes import export_torch
from tests.models import made_up


@pytest.fixture(scope='module')
def variables():
    """Of a U-Net of 800 kB."""
    return made_up.variables(UNet(width=8, stage_sizes=(1, 1, 1, 1)))


def enlarge(disk):
    subprocess.run(['mount', '-o', 'remount,size=50m', str(disk)], check=True)


def test_convert(variables, disk, tmp_path, monkeypatch, capfd):
    """Orbax's threads print three tracebacks about it, which say no more."""
    source = tmp_path / 'weights.safetensors'
    source.write_bytes(b'')
    monkeypatch.setattr(
        pretrained, 'load', lambda path: pretrained.Weights('unet', None, variables)
    )
    with pytest.raises(UsageError) as e:
        convert.convert(str(source), disk / 'out')
    assert str(e.value) == f'--output={disk}/out cannot be written: No space left on device'
    assert not any(disk.iterdir())
    assert 'Traceback' not in capfd.readouterr().err
    enlarge(disk)
    run = Run(convert.convert(str(source), disk / 'out'))
    converted = run.checkpoints.load(0, variables)
    assert checkpoints.digest(converted) == checkpoints.digest(variables)


def test_export(variables, disk):
    (disk / 'unet.pth').write_text('mine')
    for path in (disk / 'unet.safetensors', disk / 'new' / 'unet.safetensors'):
        with pytest.raises(UsageError) as e:
            export_torch.export_torch(variables, path)
        assert str(e.value) == f'{path} cannot be written: No space left on device'
    assert [path.name for path in disk.rglob('*') if path.is_file()] == ['unet.pth']
    enlarge(disk)
    path = export_torch.export_torch(variables, disk / 'unet.safetensors')
    back = pretrained.load_smp_unet(path, width=8, stage_sizes=(1, 1, 1, 1))
    np.testing.assert_array_equal(
        back['params']['encoder']['conv1']['kernel'],
        variables['params']['encoder']['conv1']['kernel'],
    )
    assert (disk / 'unet.pth').read_text() == 'mine'
