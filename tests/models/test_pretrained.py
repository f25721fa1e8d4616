"""Reading, refusing, fitting and converting weights, with small made-up files."""

import hashlib
import json
import os
import pickle

import jax
import ml_collections
import numpy as np
import pytest
import safetensors.numpy

from configs import base
from pneumojax.errors import UsageError
from pneumojax.models import pretrained, torch_names, weight_files
from pneumojax.models.convert import convert
from pneumojax.models.unet import UNet
from pneumojax.runs.run import Run
from pneumojax.system.progress import log
from tests.models import made_up

TINY = {'width': 4, 'stage_sizes': (1, 1, 1, 1)}


def fake(names, seed=0, translate=str):
    """A state dict of random numbers with these names."""
    rng = np.random.default_rng(seed)
    return {
        translate(n.torch): rng.random(n.shape, np.float32) if n.path else np.array(7, np.int64)
        for n in names
    }


def write(tensors, path):
    safetensors.numpy.save_file(tensors, path)
    return path


@pytest.fixture
def tiny(tmp_path):
    names = torch_names.resnet34(3, 10, **TINY)
    tensors = fake(names)
    return tensors, write(tensors, tmp_path / 'tiny.safetensors')


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_three_conventions_are_one(tiny, tmp_path):
    tensors, path = tiny
    expected = pretrained.load_resnet34(path, num_classes=10, **TINY)
    assert expected['params']['fc']['kernel'].shape == (32, 10)
    np.testing.assert_array_equal(
        expected['params']['layer2_0']['downsample_conv']['kernel'][0, 0],
        tensors['layer2.0.downsample.0.weight'][:, :, 0, 0].T,
    )
    theirs = {torch_names.huggingface(k): v for k, v in tensors.items()}
    other = write(theirs, tmp_path / 'hf.safetensors')
    same(pretrained.load_resnet34(other, num_classes=10, **TINY), expected)
    del expected['params']['fc']
    bare = {k.removeprefix('resnet.'): v for k, v in theirs.items() if 'classifier' not in k}
    other = write(bare, tmp_path / 'bare.safetensors')
    same(pretrained.load_resnet34(other, **TINY), expected)
    same(pretrained.load_resnet34(path, **TINY), expected)
    wrapped = {f'module.{k}': v for k, v in tensors.items()}
    same(pretrained.load_resnet34(write(wrapped, tmp_path / 'w.safetensors'), **TINY), expected)
    old = {k: v for k, v in tensors.items() if 'num_batches_tracked' not in k}
    same(pretrained.load_resnet34(write(old, tmp_path / 'old.safetensors'), **TINY), expected)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float64'])
def test_other_float_types_become_float32(tiny, tmp_path, dtype):
    import ml_dtypes

    kind = getattr(ml_dtypes, dtype, None) or np.dtype(dtype)
    cast = {k: v.astype(kind) if v.dtype.kind == 'f' else v for k, v in tiny[0].items()}
    variables = pretrained.load_resnet34(write(cast, tmp_path / 'x.safetensors'), **TINY)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype('float32')}
    np.testing.assert_array_equal(
        variables['params']['bn1']['scale'], cast['bn1.weight'].astype(np.float32)
    )


def test_the_classifier_asked_for_must_be_there(tiny, tmp_path):
    tensors, path = tiny
    with pytest.raises(UsageError, match=r'fc.weight \(10, 32\) instead of \(1000, 32\)'):
        pretrained.load_resnet34(path, num_classes=1000, **TINY)
    headless = {k: v for k, v in tensors.items() if not k.startswith('fc.')}
    path = write(headless, tmp_path / 'headless.safetensors')
    with pytest.raises(UsageError, match=r'missing \(2\): fc.weight, fc.bias'):
        pretrained.load_resnet34(path, num_classes=10, **TINY)


def test_one_error_lists_all_that_differs(tiny, tmp_path):
    tensors, _ = tiny
    for name in ('bn1.bias', 'layer1.0.conv1.weight'):
        del tensors[name]
    tensors['layer1.0.conv3.weight'] = np.zeros(3, np.float32)
    tensors['layer2.0.bn1.weight'] = np.zeros(5, np.float32)
    with pytest.raises(UsageError) as e:
        pretrained.load_resnet34(write(tensors, tmp_path / 'x.safetensors'), **TINY)
    text = str(e.value)
    assert 'missing (2): bn1.bias, layer1.0.conv1.weight' in text
    assert 'unexpected (1): layer1.0.conv3.weight' in text
    assert 'of another shape (1): layer2.0.bn1.weight (5,) instead of (8,)' in text
    assert '\n' not in text


def test_another_architecture(tiny, tmp_path):
    deeper = fake(torch_names.resnet34(width=4, stage_sizes=(2, 1, 1, 1)))
    with pytest.raises(UsageError, match=r'unexpected \(12\): layer1.1.bn1.bias, '):
        pretrained.load_resnet34(write(deeper, tmp_path / 'x.safetensors'), **TINY)
    with pytest.raises(UsageError, match=r'is not a segmentation_models_pytorch Unet.*missing'):
        pretrained.load_smp_unet(tiny[1], **TINY)
    four = fake(torch_names.resnet34(4, **TINY))
    with pytest.raises(UsageError, match=r'conv1.weight \(4, 4, 7, 7\) instead of'):
        pretrained.load_resnet34(write(four, tmp_path / 'y.safetensors'), **TINY)


@pytest.mark.parametrize('channels', [1, 3])
def test_unet_there_and_back(tmp_path, channels):
    tensors = fake(torch_names.smp_unet(channels, **TINY))
    path = write(tensors, tmp_path / 'unet.safetensors')
    variables = pretrained.load_smp_unet(path, channels=channels, **TINY)
    assert pretrained.network_shape(variables) == ('resnet34', channels, 4, (1, 1, 1, 1))
    back = pretrained.to_torch(variables)
    assert list(back) == list(tensors)
    for name, tensor in tensors.items():
        assert back[name].shape == tensor.shape
        if not name.endswith('num_batches_tracked'):
            np.testing.assert_array_equal(back[name], tensor)


# --- files that are not to be trusted ------------------------------------------------------------


def test_cut_off_and_foreign_files(tiny, tmp_path):
    whole = tiny[1].read_bytes()
    for name, content in [
        ('half.safetensors', whole[: len(whole) // 2]),
        ('header.safetensors', whole[:20]),
        ('empty.safetensors', b''),
        ('page.safetensors', b'<!DOCTYPE html><html>Not found</html>'),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=rf'{name}: not a safetensors file, or cut off'):
            pretrained.load_resnet34(tmp_path / name, **TINY)
    (tmp_path / 'weights.h5').write_bytes(whole)
    with pytest.raises(UsageError, match=r'cannot tell what this is'):
        pretrained.load_resnet34(tmp_path / 'weights.h5')
    with pytest.raises(UsageError, match=r'no such file'):
        pretrained.load_resnet34(tmp_path / 'nothing.safetensors')


def test_values_that_are_not_finite(tiny, tmp_path):
    tiny[0]['layer1.0.bn1.running_var'][1] = np.nan
    with pytest.raises(UsageError, match=r'not finite in layer1.0.bn1.running_var'):
        pretrained.load_resnet34(write(tiny[0], tmp_path / 'x.safetensors'), **TINY)


def test_a_hash_in_the_name_is_checked(tiny, tmp_path):
    content = tiny[1].read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:8]
    right = tmp_path / f'resnet34-{digest}.safetensors'
    right.write_bytes(content)
    same(pretrained.load_resnet34(right, **TINY), pretrained.load_resnet34(tiny[1], **TINY))
    wrong = tmp_path / 'resnet34-b627a593.safetensors'
    wrong.write_bytes(content)
    with pytest.raises(UsageError, match=r'SHA-256 should start with b627a593'):
        pretrained.load_resnet34(wrong, **TINY)


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('suffix', ['.pth', '.pt', '.bin', '.safetensors', '.pkl'])
def test_a_pickle_that_runs_code_does_not(tmp_path, suffix):
    path = tmp_path / f'weights{suffix}'
    path.write_bytes(pickle.dumps({'conv1.weight': Malicious(tmp_path / 'ran')}))
    with pytest.raises(UsageError, match=rf'weights{suffix}: '):
        pretrained.load_resnet34(path)
    assert not (tmp_path / 'ran').exists()


def test_a_torch_archive_that_runs_code_does_not(tmp_path):
    torch = pytest.importorskip('torch', reason='writes a .pth file, which needs PyTorch')
    path = tmp_path / 'weights.pth'
    torch.save({'conv1.weight': Malicious(tmp_path / 'ran')}, path)
    with pytest.raises(UsageError, match=r'expected a state dict'):
        pretrained.load_resnet34(path)
    assert not (tmp_path / 'ran').exists()


def test_pth_files(tiny, tmp_path):
    torch = pytest.importorskip('torch', reason='writes .pth files, which needs PyTorch')
    tensors, path = tiny
    expected = pretrained.load_resnet34(path, **TINY)
    state_dict = {k: torch.from_numpy(v.copy()) for k, v in tensors.items()}
    lightning = {'epoch': 3, 'state_dict': {f'model.{k}': v for k, v in state_dict.items()}}
    for name, content in [('plain.pth', state_dict), ('lightning.pt', lightning)]:
        torch.save(content, tmp_path / name)
        same(pretrained.load_resnet34(tmp_path / name, **TINY), expected)
    torch.save(state_dict, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    same(pretrained.load_resnet34(tmp_path / 'old.pth', **TINY), expected)
    for name in ('plain.pth', 'old.pth'):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / 'half.pth').write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UsageError, match=r'cut off'):
            pretrained.load_resnet34(tmp_path / 'half.pth', **TINY)
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(UsageError, match=r'expected a state dict'):
        pretrained.load_resnet34(tmp_path / 'list.pth')


# --- into a network, and into a directory --------------------------------------------------------


def zeros(channels=3, **size):
    shapes = made_up.shapes(UNet(**size), channels)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


@pytest.fixture(scope='module')
def full(tmp_path_factory):
    """Files of the real size: a ResNet34 with its classifier, and a U-Net."""
    folder = tmp_path_factory.mktemp('full')
    return (
        write(fake(torch_names.resnet34(3, 1000)), folder / 'resnet34.safetensors'),
        write(fake(torch_names.smp_unet(3)), folder / 'unet.safetensors'),
    )


@pytest.mark.parametrize('channels', [1, 3])
def test_initialize(full, channels):
    encoder, whole = full
    fresh = zeros(channels)
    variables = pretrained.initialize(fresh, str(encoder))
    for collection in ('params', 'batch_stats'):
        expected = pretrained.load_resnet34(encoder, channels=channels)[collection]
        same(variables[collection]['encoder'], expected)
        same(variables[collection]['decoder'], fresh[collection]['decoder'])
    variables = pretrained.initialize(fresh, str(whole))
    same(variables, pretrained.load_smp_unet(whole, channels=channels))
    assert jax.tree.structure(variables) == jax.tree.structure(fresh)
    # A head that the file lacks stays as it was drawn.
    head = {'kernel': np.ones((512, 1), np.float32), 'bias': np.zeros(1, np.float32)}
    fresh['params']['image_head'] = head
    variables = pretrained.initialize(fresh, str(whole))
    same(variables['params'].pop('image_head'), head)
    same(variables, pretrained.load_smp_unet(whole, channels=channels))


def test_initialize_takes_the_classification_head_of_a_file(tmp_path):
    path = write(
        fake(torch_names.smp_unet(3, classification_head=True)), tmp_path / 'a.safetensors'
    )
    loaded, fresh = pretrained.load_smp_unet(path), zeros(3)
    same(pretrained.initialize(fresh, str(path))['params'].get('image_head'), None)
    fresh['params']['image_head'] = jax.tree.map(np.zeros_like, loaded['params']['image_head'])
    same(pretrained.initialize(fresh, str(path)), loaded)
    network = convert(str(path), tmp_path / 'converted', base.get_config())
    model = json.loads((network / 'config.json').read_text())['model']
    assert model['classification_head'] == 'auxiliary'
    assert 'image_head' not in model
    same(pretrained.load_smp_unet(network), loaded)


def test_initialize_another_width(full):
    with pytest.raises(UsageError, match=r'width 64 and .*this network 4 and'):
        pretrained.initialize(zeros(**TINY), str(full[0]))


@pytest.mark.slow
def test_convert(full, tmp_path):
    stage = ml_collections.ConfigDict(
        {'image_size': 512, 'model': {'width': 8, 'dtype': 'bfloat16'}}
    )
    for kind, path in zip(('resnet34', 'unet'), full, strict=True):
        config = stage if kind == 'unet' else None
        output = convert(str(path), tmp_path / 'deep' / kind, config)
        assert sorted(p.name for p in output.iterdir()) == ['checkpoints', 'config.json']
        about = json.loads((output / 'config.json').read_text())
        assert about['converted']['kind'] == kind
        assert about['converted']['file'] == path.name
        assert about['converted']['sha256'] == weight_files.sha256(path)
        assert about['converted']['num_classes'] == (1000 if kind == 'resnet34' else None)
        assert about['model']['channels'] == 3
        assert Run(output).checkpoints.latest_step() == 0
        assert Run(output).checkpoints.items(0) == {'params', 'batch_stats'}
        fresh = zeros(1)
        same(pretrained.initialize(fresh, str(output)), pretrained.initialize(fresh, str(path)))
    assert about['image_size'] == 512  # the configuration given, with the network's own shape
    assert (about['model']['width'], about['model']['dtype']) == (64, 'bfloat16')
    assert stage.model.width == 8
    encoder = tmp_path / 'deep' / 'resnet34'
    same(
        pretrained.load_resnet34(encoder, num_classes=1000),
        pretrained.load_resnet34(full[0], num_classes=1000),
    )
    same(pretrained.load_resnet34(encoder), pretrained.load_resnet34(full[0]))
    with pytest.raises(UsageError, match=r'holds a resnet34 .*expected a unet'):
        pretrained.load_smp_unet(encoder)


def test_convert_says_what_it_wrote_and_what_is_next(tmp_path, messages):
    """The numbers are counted in the file, and the options are ones that training takes."""
    log.setLevel('INFO')
    for name, names, channels in (
        ('unet', torch_names.smp_unet, 1), ('resnet34', torch_names.resnet34, 3),
    ):  # fmt: skip
        tensors = fake(names(channels))
        path, output = write(tensors, tmp_path / f'{name}.safetensors'), tmp_path / name
        convert(str(path), output)
        (said,) = (message for message in messages if str(output) in message)
        messages.clear()
        counted = [x.size for key, x in tensors.items() if 'num_batches' not in key]
        assert f'{len(counted)} arrays, {sum(counted):,} numbers' in said
        assert str(path) in said
        given = dict(word.strip(';').split('=') for word in said.split() if '--config.' in word)
        config = base.get_config()
        config.update_from_flattened_dict(
            {key.removeprefix('--config.'): value for key, value in given.items()
             if 'channels' not in key}
        )  # fmt: skip
        assert (config.init_from or config.model.pretrained) == str(output)
        assert given.get('--config.model.channels') == (None if channels == 3 else '1')


def test_convert_refuses(tiny, tmp_path):
    output = tmp_path / 'output'
    with pytest.raises(UsageError, match=r'is not a ResNet34'):
        convert(str(tiny[1]), output)
    assert not output.exists()
    output.mkdir()
    (output / 'mine.txt').write_text('keep')
    with pytest.raises(UsageError, match=r'exists and is not an empty directory'):
        convert(str(tiny[1]), output)
    assert [p.name for p in output.iterdir()] == ['mine.txt']
    assert sorted(p.name for p in tmp_path.iterdir()) == ['output', 'tiny.safetensors']
