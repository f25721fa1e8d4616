"""Exports: checked against JAX, refused when they differ, never over another file."""

import json

import jax
import numpy as np
import pytest

from pneumojax import config as config_lib
from pneumojax.errors import UsageError
from pneumojax.models import build, pretrained, tta
from pneumojax.runs.run import Run
from pneumojax.runtimes import choose, ensemble_member
from pneumojax.runtimes import export as export_lib
from pneumojax.runtimes.export import export, parse_shape
from tests.tiny_runs import write_run

needs_onnx = pytest.mark.skipif(
    not choose.is_installed('onnx') or not choose.is_installed('onnxruntime'),
    reason="the extra 'cpu' is not installed",
)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp('runs') / 'tiny', rule=(0.6, 300, 0.55))


def jax_predicts(run, images):
    one = ensemble_member.of_run(run)
    predict = tta.make_predict(one.config, build.make_model(one.config), one.flips)
    return np.asarray(jax.jit(predict)(one.variables(), images))


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@needs_onnx
def test_onnx_is_described_and_carries_its_metadata(run, tmp_path):
    import onnx

    export(run.config(), run, tmp_path, 'onnx')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['unet.onnx', 'unet.onnx.json']
    stated = json.loads((tmp_path / 'unet.onnx.json').read_text())
    assert stated['identity'] == {
        'name': 'tiny0', 'step': 7, 'weights': 'last', 'flips': ['horizontal'], 'image_size': 32,
        'phantoms': False, 'normalization': 'unit', 'classification_head': 'none',
        'digest': run.checkpoints.weights_digest(7, averaged=False),
    }  # fmt: skip
    assert stated['rule']['area'] == 300
    assert stated['shape'] == ['batch', 32, 32]
    assert stated['checked']['largest_difference'] < 1e-5
    assert str(run.path.parent) not in json.dumps(stated)  # paths stay private
    kept = {p.key: p.value for p in onnx.load(tmp_path / 'unet.onnx').metadata_props}
    assert json.loads(kept['rule']) == stated['rule']
    assert kept['normalization'].startswith('unit')


@needs_onnx
def test_existing_files_are_not_overwritten(run, tmp_path):
    (tmp_path / 'unet.onnx').write_text('mine')
    with pytest.raises(UsageError, match='exists already'):
        export(run.config(), run, tmp_path, 'onnx')
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [('unet.onnx', 'mine')]


@pytest.mark.parametrize('format', ['stablehlo', pytest.param('onnx', marks=needs_onnx)])
def test_the_same_command_finishes_what_a_killed_export_began(run, tmp_path, format):
    export(run.config(), run, tmp_path, format)
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert not any(b'.py' in content for content in whole.values())  # paths stay private
    (tmp_path / f'unet.{format}.json').unlink()
    export(run.config(), run, tmp_path, format)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole
    with pytest.raises(UsageError, match='exists already'):
        export(run.config(), run, tmp_path, format)


@needs_onnx
@pytest.mark.parametrize('mistake', ['epsilon', 'padding'])
def test_a_network_that_differs_from_jax_is_refused(run, tmp_path, monkeypatch, mistake):
    """Mistakes that converters of libraries made, or could make."""
    from pneumojax.runtimes import onnx_builder

    if mistake == 'epsilon':
        folded = onnx_builder.Graph.folded
        monkeypatch.setattr(onnx_builder.Graph, 'folded', lambda *args: folded(*args, 1e-2))
    else:
        node = onnx_builder.Graph.node

        def unpadded(self, op, inputs, *args, **attributes):
            if op == 'MaxPool':  # as 'SAME' pads an even size: the far edge only
                attributes['pads'] = [0, 0, 1, 1]
            return node(self, op, inputs, *args, **attributes)

        monkeypatch.setattr(onnx_builder.Graph, 'node', unpadded)
    with pytest.raises(UsageError, match=r'differs from JAX by up to .*nothing was written'):
        export(run.config(), run, tmp_path / 'new', 'onnx')
    assert not (tmp_path / 'new').exists()


@pytest.mark.slow
def test_stablehlo_is_the_same_function_at_any_size(run, tmp_path):
    from jax import export as jax_export

    export(run.config(), run, tmp_path, 'stablehlo', 'any,any,any')
    back = jax_export.deserialize(bytearray((tmp_path / 'unet.stablehlo').read_bytes()))
    assert set(back.platforms) == {'cpu', 'cuda', 'tpu'}
    images = noise(3, 64, 32)
    np.testing.assert_allclose(back.call(images), jax_predicts(run, images), atol=1e-5)
    stated = json.loads((tmp_path / 'unet.stablehlo.json').read_text())
    assert stated['identity']['step'] == 7


@pytest.mark.slow
@pytest.mark.parametrize('format', ['torch', 'stablehlo', pytest.param('onnx', marks=needs_onnx)])
def test_an_efficientnet_lite0_is_exported_too(tmp_path, format):
    """The other two compare themselves with JAX before they write anything."""
    run = write_run(tmp_path / 'run', encoder='efficientnet_lite0')
    out = tmp_path / 'exported'
    export(run.config(), run, out, format, None if format == 'torch' else 'any,any,any')
    if format == 'torch':
        back = pretrained.load_smp_unet(out / 'unet.safetensors', channels=1, width=4)
        jax.tree.map(np.testing.assert_array_equal, back, ensemble_member.of_run(run).variables())
    else:
        stated = json.loads((out / f'unet.{format}.json').read_text())
        assert stated['checked']['largest_difference'] < 1e-5


def test_shapes():
    assert parse_shape('', 512) == ('batch', 512, 512)
    assert parse_shape('1,any,64', 512) == (1, 'height', 64)
    absurd = ('1,48,99999999999', '1,20000,20000', '999999,any,any', f'any,any,{"9" * 5000}')
    for text in ('1,2', '0,32,32', 'any,any,big', '1,2,3,4', '-1,32,32', *absurd):
        with pytest.raises(UsageError, match='--shape'):
            parse_shape(text, 512)


def test_refusals(run, tmp_path, monkeypatch):
    untrained = Run(tmp_path / 'untrained')
    untrained.start(run.config())
    for format in export_lib.FORMATS:
        with pytest.raises(UsageError, match='no checkpoint'):
            export(untrained.config(), untrained, tmp_path / 'out', format)
    with pytest.raises(UsageError, match='state dict fits every size'):
        export(run.config(), run, tmp_path / 'out', 'torch', 'any,any,any')
    damaged = Run(tmp_path / 'damaged')
    damaged.start(run.config())
    damaged.write_json('config.json', json.loads(config_lib.to_json(run.config())) | {'data': 1})
    with pytest.raises(UsageError, match=r'config\.data'):
        export(run.config(), damaged, tmp_path / 'out')
    monkeypatch.setattr(choose, 'is_installed', lambda name: name != 'onnx')
    with pytest.raises(UsageError, match=r'package onnx; pip install .pneumojax\[cpu\]'):
        export(run.config(), run, tmp_path / 'out', 'onnx')
    assert not (tmp_path / 'out').exists()


def test_of_stages_the_last_is_exported_and_folds_one_by_one(run, tmp_path):
    config = run.config()
    with config.unlocked():
        config.stages = {'first': {'image_size': 16}, 'second': {'image_size': 32}}
    whole = Run(tmp_path / 'whole')
    whole.start(config)
    write_run(tmp_path / 'whole' / 'second')
    export(config, whole, tmp_path / 'out')
    assert (tmp_path / 'out' / 'unet.safetensors').is_file()
    config.stages = {}
    config.data.fold = config_lib.ALL_FOLDS
    folds = Run(tmp_path / 'folds')
    folds.start(config)
    with pytest.raises(UsageError, match='holds folds; export each'):
        export(config, folds, tmp_path / 'out')
