import jax
import numpy as np
import pytest
import safetensors.numpy

from pneumojax.errors import UsageError
from pneumojax.models import pretrained, weight_files
from pneumojax.models.unet import UNet
from pneumojax.runtimes import exported
from pneumojax.runtimes.export_torch import export_torch, export_torch_all

TINY = {'width': 4, 'stage_sizes': (1, 1, 1, 1)}


@pytest.fixture(scope='module')
def variables():
    rng = np.random.default_rng(0)
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    shapes = jax.eval_shape(lambda x: UNet(**TINY).init(jax.random.key(0), x, train=False), x)
    return jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), shapes)


def test_safetensors_reads_back(variables, tmp_path):
    path = export_torch(variables, tmp_path / 'new' / 'unet.safetensors')
    back = pretrained.load_smp_unet(path, **TINY)
    jax.tree.map(np.testing.assert_array_equal, back, dict(variables))
    tensors = safetensors.numpy.load_file(path)
    assert tensors['encoder.bn1.num_batches_tracked'].shape == ()
    assert tensors['encoder.bn1.num_batches_tracked'].dtype == np.int64


def test_pth_is_the_same_state_dict(variables, tmp_path):
    torch = pytest.importorskip('torch', reason='writes and reads .pth, which needs PyTorch')
    paths = export_torch_all(variables, tmp_path)
    assert [p.name for p in paths] == ['unet.safetensors', 'unet.pth']
    one = safetensors.numpy.load_file(paths[0])
    other = torch.load(paths[1], weights_only=True)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        np.testing.assert_array_equal(other[name].numpy(), tensor)


def test_nothing_is_overwritten(variables, tmp_path):
    path = tmp_path / 'unet.safetensors'
    path.write_text('mine')
    for write in (
        lambda: export_torch(variables, path),
        lambda: export_torch_all(variables, tmp_path),
    ):
        with pytest.raises(UsageError, match=r'exists already'):
            write()
    assert [p.name for p in tmp_path.iterdir()] == ['unet.safetensors']
    assert path.read_text() == 'mine'


def test_the_same_command_finishes_what_a_killed_export_began(variables, tmp_path):
    pytest.importorskip('torch', reason='without PyTorch there is only one file')
    whole = {path.name: path.read_bytes() for path in export_torch_all(variables, tmp_path)}
    (tmp_path / 'unet.pth').unlink()
    export_torch_all(variables, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole


def test_when_a_file_cannot_be_written_none_stays(tmp_path, monkeypatch):
    def full(path, content):
        if path.name == 'b':
            raise UsageError(f'{path} cannot be written: No space left on device')
        write_new(path, content)

    write_new = exported.write_new
    monkeypatch.setattr(exported, 'write_new', full)
    with pytest.raises(UsageError, match=r'b cannot be written: No space left'):
        exported.write({tmp_path / 'a': b'1', tmp_path / 'b': b'2'})
    assert not any(tmp_path.iterdir())
    (tmp_path / 'a').write_bytes(b'1')  # whole, and not this call's
    with pytest.raises(UsageError, match='No space left'):
        exported.write({tmp_path / 'a': b'1', tmp_path / 'b': b'2'})
    assert (tmp_path / 'a').read_bytes() == b'1'


def test_refusals(variables, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r'ending in .safetensors or .pth'):
        export_torch(variables, tmp_path / 'unet.onnx')
    (tmp_path / 'file').write_text('')
    with pytest.raises(UsageError, match=r'cannot be written'):
        export_torch(variables, tmp_path / 'file' / 'unet.safetensors')
    monkeypatch.setattr(weight_files, 'has_torch', lambda: False)
    with pytest.raises(UsageError, match=r'PyTorch is not installed'):
        export_torch(variables, tmp_path / 'unet.pth')
    paths = export_torch_all(variables, tmp_path / 'new')
    assert [p.name for p in paths] == ['unet.safetensors']
