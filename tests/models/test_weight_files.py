"""Hostile files of weights: found by the fuzz driver, refused in one line ever since."""

import io
import json
import pathlib
import struct
import zipfile

import numpy as np
import pytest

from pneumojax.errors import UsageError
from pneumojax.models import weight_files
from pneumojax.system import limits

torch = pytest.importorskip('torch', reason='PyTorch is not installed')


class Code:
    """Pickled as a call that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path(self.path),)


def refused(path, expected):
    with pytest.raises(UsageError, match=expected) as error:
        weight_files.read_tensors(path)
    assert str(path) in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('zipped', [True, False])
def test_code_in_a_pickle_does_not_run(tmp_path, zipped):
    path, trap = tmp_path / 'w.pth', tmp_path / 'trap'
    content = {'state_dict': {'w': torch.ones(2), 'x': Code(trap)}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    refused(path, 'x: no dense tensors of numbers')
    assert not trap.exists()
    torch.load(path, weights_only=False)
    assert trap.exists()  # it would have


def sparse():
    return torch.ones(3).to_sparse()


def quantized():
    return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


def without_memory():
    return torch.empty(1 << 40, device='meta')


def complex_numbers():
    return torch.ones(3, dtype=torch.complex64)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('make', [sparse, quantized, without_memory, complex_numbers])
def test_tensors_that_are_no_arrays(tmp_path, make):
    torch.save({'odd': make()}, tmp_path / 'w.pth')
    refused(tmp_path / 'w.pth', 'expected a state dict')


def test_one_number_that_claims_terabytes(tmp_path):
    torch.save({'w': torch.zeros(1).expand(1 << 20, 1 << 20)}, tmp_path / 'w.pth')
    refused(tmp_path / 'w.pth', 'claim 4398046511104 bytes')


def test_parameters_count_as_tensors(tmp_path):
    torch.save({'w': torch.nn.Parameter(torch.ones(3))}, tmp_path / 'w.pth')
    np.testing.assert_array_equal(weight_files.read_tensors(tmp_path / 'w.pth')['w'], np.ones(3))


def test_an_archive_that_inflates(tmp_path):
    buffer = io.BytesIO()
    torch.save({'w': torch.ones(3)}, buffer)
    source = zipfile.ZipFile(buffer)
    with zipfile.ZipFile(tmp_path / 'w.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            data = bytes(1 << 26) if name.endswith('data/0') else source.read(name)
            archive.writestr(name, data)
    refused(tmp_path / 'w.pth', 'inflates to')


def test_an_archive_in_several_parts(tmp_path):
    torch.save({'w': torch.ones(3)}, tmp_path / 'w.pth')
    content = bytearray((tmp_path / 'w.pth').read_bytes())
    at = content.rindex(b'PK\x06\x07')  # where the end of a large archive is
    content[at + 16 : at + 20] = (7).to_bytes(4, 'little')
    (tmp_path / 'w.pth').write_bytes(content)
    refused(tmp_path / 'w.pth', 'not a')


@pytest.mark.parametrize(
    ('size', 'header'),
    [
        (1 << 60, {}),
        (None, {'w': {'dtype': 'F32', 'shape': [1 << 40], 'data_offsets': [0, 4]}}),
        (None, {'w': {'dtype': 'F32', 'shape': [-1], 'data_offsets': [0, 4]}}),
        (None, {'w': {'dtype': 'F32', 'shape': [1], 'data_offsets': [4, 0]}}),
        (None, [1]),
    ],
)
def test_headers_that_lie(tmp_path, size, header):
    text = json.dumps(header).encode()
    content = struct.pack('<Q', size or len(text)) + text + bytes(8)
    (tmp_path / 'w.safetensors').write_bytes(content)
    refused(tmp_path / 'w.safetensors', 'not a safetensors file')


def test_large_files(tmp_path, monkeypatch):
    (tmp_path / 'w.safetensors').write_bytes(bytes(2000))
    monkeypatch.setattr(limits, 'MAX_WEIGHT_BYTES', 1000)
    refused(tmp_path / 'w.safetensors', 'limit of 1000')
