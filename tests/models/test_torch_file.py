"""PyTorch's files read without PyTorch: by hand-made files, and against PyTorch itself."""

import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest

from pneumojax.errors import UsageError
from pneumojax.models import torch_file, weight_files


def pickled(name='w', key='0', numbers=6, offset=0, shape=(2, 3), strides=(3, 1), beside=b''):
    """The instructions that PyTorch writes for {name: float32 tensor}; `beside` comes first."""

    def text(value):
        return b'X' + struct.pack('<I', len(value)) + value.encode()

    def tuple_of(values):
        return b'(' + b''.join(b'\x8a\x08' + struct.pack('<q', v) for v in values) + b't'

    storage = b'(' + text('storage') + b'ctorch\nFloatStorage\n' + text(key) + text('cpu')
    tensor = (
        b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + b'\x8a\x08'
        + struct.pack('<q', numbers) + b'tQ' + b'\x8a\x08' + struct.pack('<q', offset)
        + tuple_of(shape) + tuple_of(strides) + b'\x89ccollections\nOrderedDict\n)RtR'
    )  # fmt: skip
    return b'\x80\x02}(' + beside + text(name) + tensor + b'u.'


def archive(path, description, data, order=b'little'):
    with zipfile.ZipFile(path, 'w') as file:
        file.writestr('any/data.pkl', description)
        file.writestr('any/byteorder', order)
        file.writestr('any/data/0', data)
    return path


NUMBERS = np.arange(6, dtype=np.float32)


def test_a_tensor_by_hand(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)  # cannot be imported
    path = archive(tmp_path / 'w.pth', pickled(), NUMBERS.tobytes())
    (name, tensor), *more = weight_files.read_tensors(path).items()
    assert (name, more, tensor.dtype) == ('w', [], np.float32)
    np.testing.assert_array_equal(tensor, NUMBERS.reshape(2, 3))
    turned = pickled(shape=(3, 2), strides=(1, 3))
    path = archive(tmp_path / 'w.ckpt', turned, NUMBERS.tobytes())
    np.testing.assert_array_equal(weight_files.read_tensors(path)['w'], NUMBERS.reshape(2, 3).T)


def test_a_tensor_by_hand_as_before_version_1_6(tmp_path):
    head = [0x1950A86A20F9469CFC6C, 1001, {'little_endian': True, 'protocol_version': 1001}]
    content = b''.join(pickle.dumps(part, protocol=2) for part in head) + pickled()
    content += pickle.dumps(['0'], protocol=2) + struct.pack('<q', 6) + NUMBERS.tobytes()
    (tmp_path / 'w.pth').write_bytes(content)
    tensors = weight_files.read_tensors(tmp_path / 'w.pth')
    np.testing.assert_array_equal(tensors['w'], NUMBERS.reshape(2, 3))


class Run:
    """Pickled as a call that makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, 'w')


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_other_objects_beside_the_weights_are_not_made(tmp_path, protocol):
    trap = tmp_path / 'trap'
    foreign = {'hyper': Run(str(trap)), 'set': {1}, 'frozen': frozenset((1,)), 'bytes': b'x',
               'deep': [(None, True, 1.5, 1 << 80, -1)], 'array': np.arange(3)}  # fmt: skip
    weights = pickled()[2:-1]  # without the frame of a pickle
    whole = pickle.dumps(foreign, protocol=protocol)
    assert whole[-2:] == b'u.'
    nested = b'X\x0a\0\0\0state_dict' + weights
    # FRAME's length need not fit: it only helps to read ahead.
    path = archive(tmp_path / 'w.ckpt', whole[:-2] + nested + b'u.', NUMBERS.tobytes())
    np.testing.assert_array_equal(weight_files.read_tensors(path)['w'], NUMBERS.reshape(2, 3))
    assert not trap.exists()
    pickle.loads(whole)
    assert trap.exists()  # it would have


@pytest.mark.parametrize(
    ('description', 'message'),
    [
        (pickled(shape=(2, 4), strides=(3, 1)), 'without its numbers'),
        (pickled(offset=1), 'without its numbers'),
        (pickled(shape=(1 << 39, 1 << 39)), 'tensors claim'),
        (pickled(offset=-1), 'expected a state dict'),
        (pickled(strides=(-3, 1)), 'expected a state dict'),
        (pickled(key='1'), r'damaged \(KeyError\)'),
        (pickled()[:-1], 'cut off'),
        (pickled() * 2, None),
        (b'\x80\x02}(', 'cut off'),
        (b'\x80\x02u.', 'damaged'),
        (b'N.', 'expected a state dict'),
        (b'N0' * (1 << 21) + pickled(), 'its description takes more than'),
        (b'h\x07.', 'damaged'),
        (b'\x82\x07.', 'uses EXT1|damaged'),
    ],
)
def test_descriptions_that_lie(tmp_path, description, message):
    path = archive(tmp_path / 'w.pth', description, NUMBERS.tobytes())
    if message is None:
        assert list(weight_files.read_tensors(path)) == ['w']
        return
    with pytest.raises(UsageError, match=message) as error:
        weight_files.read_tensors(path)
    assert '\n' not in str(error.value)


def test_other_byte_orders_are_refused(tmp_path):
    path = archive(tmp_path / 'w.pth', pickled(), NUMBERS.tobytes(), order=b'big')
    with pytest.raises(UsageError, match='big-endian'):
        weight_files.read_tensors(path)


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (['_orig_mod.a', '_orig_mod.b.c'], ['a', 'b.c']),
        (['model.module.a', 'model.module.b'], ['a', 'b']),
        (['module.model.net._orig_mod.a', 'module.model.net._orig_mod.b'], ['a', 'b']),
        (['model.encoder._orig_mod.a', 'model.b'], ['encoder.a', 'b']),
        (['module.a', 'module.module.b', 'n_averaged'], ['a', 'module.b']),
        (['model.a', 'other.b'], ['model.a', 'other.b']),
        (['model.model_orig_mod.a'], ['model_orig_mod.a']),
        ([], []),
    ],
)
def test_what_a_network_was_wrapped_in(tmp_path, names, expected):
    import safetensors.numpy

    path = tmp_path / 'w.safetensors'
    path.write_bytes(safetensors.numpy.save(dict.fromkeys(names, NUMBERS)))
    assert sorted(weight_files.read_tensors(path)) == sorted(expected)


def test_two_networks_in_one_are_refused(tmp_path):
    import safetensors.numpy

    path = tmp_path / 'w.safetensors'
    path.write_bytes(safetensors.numpy.save({'a': NUMBERS, '_orig_mod.a': NUMBERS}))
    with pytest.raises(UsageError, match='holds a network twice'):
        weight_files.read_tensors(path)


@pytest.mark.parametrize('zipped', [True, False])
def test_every_tensor_is_what_pytorch_reads(tmp_path, zipped):
    torch = pytest.importorskip('torch', reason='PyTorch is not installed')
    torch.manual_seed(0)
    whole = torch.randn(4, 5, 6)
    layer = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    dtypes = ['float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'int16', 'int8',
              'uint8', 'bool']  # fmt: skip
    given = {name: (whole * 10).to(getattr(torch, name)) for name in dtypes} | {
        'turned': whole.permute(2, 0, 1), 'part': whole[1:, ::2, 3], 'one': whole[0, 0, 0],
        'wide': torch.ones(1).expand(7, 3), 'none': torch.zeros(0, 3), 'last': whole[3:],
        'flipped': whole.flip(0), 'weight': torch.nn.Parameter(whole),
        **layer.state_dict(),
    }  # fmt: skip
    optimizer = {'state': {0: {'step': torch.ones(()), 'exp_avg': whole}}, 'param_groups': [{}]}
    checkpoint = {'state_dict': given, 'optimizer_states': [optimizer], 'epoch': 3}
    path = tmp_path / 'w.ckpt'
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    expected = torch.load(path, weights_only=True)['state_dict']
    found = weight_files.read_tensors(path)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        tensor = tensor.detach()
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        assert (found[name].shape, found[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(found[name], array)


def test_the_whole_content_of_a_file(tmp_path):
    path = archive(tmp_path / 'w.pth', pickled(), NUMBERS.tobytes())
    content = torch_file.TorchFile(path).content
    assert content['w'] == torch_file.Tensor(
        torch_file.Storage(np.float32, '0', 6), 0, (2, 3), (3, 1)
    )
