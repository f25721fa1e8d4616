"""Runtimes: each gives JAX's probabilities; which one is chosen; the copy beside the run."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import types

import cv2
import numpy as np
import pytest

from pneumojax.data.phantoms import phantom
from pneumojax.errors import UsageError
from pneumojax.prediction import borderline
from pneumojax.prediction.ensemble import Ensemble
from pneumojax.prediction.options import Options
from pneumojax.prediction.predict import predict
from pneumojax.runtimes import choose, cpu_runtimes, export, exported
from tests.tiny_runs import write_run
from tests.waiting import PATIENCE

REPOSITORY = pathlib.Path(__file__).parents[2]
CPU_RUNTIMES = ('openvino', 'onnxruntime')

pytestmark = pytest.mark.skipif(
    not all(choose.is_installed(name) for name in ('onnx', *CPU_RUNTIMES)),
    reason="the extra 'cpu' is not installed",
)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Two sizes, three networks; all are exported once."""
    root = tmp_path_factory.mktemp('runs')
    made = [
        write_run(root / 'one', size=32, seed=0, rule=(0.6, 300, 0.55)),
        write_run(root / 'two', size=32, seed=1, flips=()),
        write_run(root / 'three', size=48, seed=2, flips=('vertical',)),
    ]
    Ensemble(made, 'onnxruntime')
    return made


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp('images')
    phantom.write_dataset(root, num_images=3, size=64, seed=9, positive_share=1.0)
    return root


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_every_runtime_predicts_what_jax_predicts(runs):
    batch = {size: noise(3, size, size, seed=size) for size in (32, 48)}
    expected = Ensemble(runs, 'jax').predict(batch)
    for runtime in CPU_RUNTIMES:
        ensemble = Ensemble(runs, runtime, 'float32')
        assert ensemble.runtime == {'name': runtime, 'precision': 'float32'}
        actual = ensemble.predict(batch)
        for size in (32, 48):
            np.testing.assert_allclose(actual[size], expected[size], atol=1e-5)
            one = ensemble.predict({s: images[1:2] for s, images in batch.items()})
            np.testing.assert_allclose(one[size], expected[size][1:2], atol=1e-5)


def test_bfloat16_is_near_and_can_be_refused(runs):
    openvino = cpu_runtimes.import_openvino()

    batch = {32: noise(2, 32, 32)}
    if 'BF16' not in openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
        for precision in ('bfloat16', 'bfloat16_checked'):
            with pytest.raises(UsageError, match=f'{precision}: .* no bfloat16 instructions'):
                Ensemble(runs[:1], 'openvino', precision)
        assert Ensemble(runs[:1], 'openvino').runtime['precision'] == 'float32'
    else:
        ensemble = Ensemble(runs[:1], 'openvino', 'bfloat16_checked')
        full = Ensemble(runs[:1], 'openvino', 'float32').predict(batch)[32]
        np.testing.assert_allclose(ensemble.predict(batch)[32], full, atol=0.1)
    half = Ensemble(runs[:1], 'jax', 'bfloat16')
    expected = Ensemble(runs[:1], 'jax', 'float32').predict(batch)[32]
    difference = np.abs(half.predict(batch)[32] - expected)
    assert 0 < difference.max() < 0.1


@pytest.mark.parametrize(
    ('processor', 'flags', 'precision'),
    [
        ('AMD EPYC', {'avx512_bf16'}, 'bfloat16_checked'),
        ('Intel(R) Xeon(R) Processor', {'avx512_bf16', 'amx_bf16'}, 'bfloat16_checked'),
        ('Intel(R) Xeon(R) Processor', {'avx512_bf16'}, 'float32'),
        ('Intel(R) Xeon(R) Processor', set(), 'bfloat16_checked'),  # not known: as before
        ('AMD EPYC', {'avx2'}, 'float32'),
    ],
)
def test_bfloat16_is_chosen_where_it_is_faster(processor, flags, precision, monkeypatch):
    capabilities = ['FP32', 'BF16'] if 'avx2' not in flags else ['FP32']
    properties = {'OPTIMIZATION_CAPABILITIES': capabilities, 'FULL_DEVICE_NAME': processor}

    class Core:
        def get_property(self, device, name):
            return properties[name]

    openvino = types.SimpleNamespace(Core=Core)
    monkeypatch.setattr(cpu_runtimes, 'import_openvino', lambda: openvino)
    monkeypatch.setattr(cpu_runtimes, '_processor_flags', lambda: flags)
    assert cpu_runtimes.OpenVINO().precision == precision


def test_mixed_precision_is_float32_where_the_mask_is_borderline(runs, monkeypatch):
    openvino = cpu_runtimes.import_openvino()

    if 'BF16' not in openvino.Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES'):
        pytest.skip('this processor has no instructions for bfloat16')
    shape, images = (40, 70), {32: noise(32, 32), 48: noise(48, 48, seed=1)}

    def whole(precision, is_borderline):
        monkeypatch.setattr(borderline, 'is_borderline', lambda rule, probability: is_borderline)
        ensemble = Ensemble(runs, 'openvino', precision)
        batch = {size: np.stack([noise(size, size, seed=9), images[size]]) for size in images}
        predicted = {size: p[1] for size, p in ensemble.predict(batch).items()}
        return ensemble.probability(images, predicted, shape, 1.0)

    half, full = whole('bfloat16', True), whole('float32', True)
    assert not half[1]
    assert not full[1]
    assert np.abs(half[0] - full[0]).max() > 1e-4
    settled, again = whole('bfloat16_checked', False)
    assert not again
    np.testing.assert_array_equal(settled, half[0])
    settled, again = whole('bfloat16_checked', True)
    assert again
    np.testing.assert_allclose(settled, full[0], atol=1e-6)


@pytest.mark.parametrize(
    ('runtime', 'precision', 'installed', 'accelerator', 'chosen'),
    [
        ('auto', 'auto', ('openvino', 'onnxruntime'), False, 'openvino'),
        ('auto', 'auto', ('onnxruntime',), False, 'onnxruntime'),
        ('auto', 'auto', (), False, 'jax'),
        ('auto', 'auto', ('openvino', 'onnxruntime'), True, 'jax'),
        ('auto', 'bfloat16', ('onnxruntime',), False, 'jax'),
        ('auto', 'bfloat16_checked', ('openvino', 'onnxruntime'), False, 'openvino'),
        ('openvino', 'auto', ('openvino',), True, 'openvino'),
        ('jax', 'float32', ('openvino',), False, 'jax'),
    ],
)
def test_the_choice(monkeypatch, runtime, precision, installed, accelerator, chosen):
    monkeypatch.setattr(choose, 'is_installed', lambda name: name in installed)
    monkeypatch.setattr(choose, 'has_accelerator', lambda: accelerator)
    assert choose.choose(runtime, precision).name == chosen


def test_choices_that_cannot_be(monkeypatch):
    monkeypatch.setattr(choose, 'is_installed', lambda name: name == 'onnxruntime')
    for runtime, precision, words in (
        ('openvino', 'auto', r'openvino is not installed; pip install .pneumojax\[cpu\]'),
        ('onnxruntime', 'bfloat16', 'float32'),
        ('onnxruntime', 'bfloat16_checked', 'float32'),
        ('jax', 'bfloat16_checked', 'needs OpenVINO'),
        ('tensorrt', 'auto', '--runtime'),
        ('jax', 'float16', '--precision'),
        ('openvino', 'mixed', 'now called bfloat16_checked'),
    ):
        with pytest.raises(UsageError, match=words):
            choose.choose(runtime, precision)


@pytest.mark.slow
def test_the_copy_beside_the_run_is_made_once_and_again_for_other_weights(tmp_path, monkeypatch):
    made = []
    original = export.onnx_and_description

    def counted(*args):
        made.append(args)
        return original(*args)

    monkeypatch.setattr(export, 'onnx_and_description', counted)
    run = write_run(tmp_path / 'run')
    for _ in range(2):
        Ensemble([run], 'onnxruntime')
    assert len(made) == 1
    first = list((run / 'exported').iterdir())
    shutil.rmtree(run.path)
    run = write_run(tmp_path / 'run', seed=5)  # the same step and size, other weights
    ensemble = Ensemble([run], 'onnxruntime')
    assert len(made) == 2
    second = list((run / 'exported').iterdir())
    assert len(second) == 1
    assert second != first
    batch = {32: noise(1, 32, 32)}
    np.testing.assert_allclose(
        ensemble.predict(batch)[32], Ensemble([run], 'jax').predict(batch)[32], atol=1e-5
    )


@pytest.mark.slow
def test_a_run_that_cannot_be_written_predicts_all_the_same(tmp_path, monkeypatch):
    run = write_run(tmp_path / 'run')
    (run / 'exported').write_text('a file where the folder would be')
    batch = {32: noise(1, 32, 32)}
    expected = Ensemble([run], 'jax').predict(batch)[32]
    for runtime in CPU_RUNTIMES:
        actual = Ensemble([run], runtime, 'float32').predict(batch)[32]
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_auto_gives_way_to_jax_if_onnx_is_not_installed(tmp_path, monkeypatch):
    run = write_run(tmp_path / 'run')
    monkeypatch.setattr(choose, 'has_accelerator', lambda: False)
    monkeypatch.setattr(choose, 'is_installed', lambda name: name == 'openvino')
    assert Ensemble([run]).runtime['name'] == 'jax'
    with pytest.raises(UsageError, match='package onnx'):
        Ensemble([run], 'openvino')


@pytest.mark.slow
def test_an_exported_folder_predicts_without_jax(runs, images, tmp_path):
    """In a fresh process where JAX, Orbax, Flax and matplotlib cannot be imported."""
    folder = tmp_path / 'exported'
    export.export(runs[0].config(), runs[0], folder, 'onnx')
    script = (
        'import sys\n'
        'for name in ("jax", "orbax", "flax", "matplotlib", "onnx", "onnxruntime"):\n'
        '    sys.modules[name] = None\n'
        'import runpy\n'
        'runpy.run_module("pneumojax.main", run_name="__main__")\n'
    )
    subprocess.run(
        [
            sys.executable, '-c', script, '--mode=predict', f'--workdir={folder}',
            f'--input={images}', f'--output={tmp_path / "out"}', '--precision=float32',
        ],
        env=os.environ | {'PYTHONPATH': str(REPOSITORY)}, check=True, timeout=PATIENCE,
    )  # fmt: skip
    stated = json.loads((tmp_path / 'out' / 'predict.json').read_text())
    assert stated['runtime'] == {'name': 'openvino', 'precision': 'float32'}
    assert stated['runs'][0]['run'] == str(folder)
    assert 'openvino, float32' in (tmp_path / 'out' / 'report.html').read_text()
    predict(runs[:1], str(images), str(tmp_path / 'jax'), Options(runtime='jax'))
    masks = sorted((tmp_path / 'jax' / 'masks').iterdir())
    assert len(masks) == 3
    for path in masks:
        ours = cv2.imread(str(tmp_path / 'out' / 'masks' / path.name), cv2.IMREAD_GRAYSCALE)
        theirs = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert np.count_nonzero(ours != theirs) <= 2  # the last bit, at the threshold
        assert theirs.any()


def test_a_prediction_is_not_continued_with_another_runtime(runs, images, tmp_path):
    predict(runs[:1], str(images), str(tmp_path / 'out'), Options(runtime='onnxruntime'))
    with pytest.raises(UsageError, match='another prediction'):
        predict(runs[:1], str(images), str(tmp_path / 'out'), Options(runtime='jax'))


def test_exported_folders_that_cannot_be_used(runs, tmp_path):
    run = runs[0]
    export.export(run.config(), run, tmp_path / 'whole', 'onnx')
    with pytest.raises(UsageError, match='is an exported network, which JAX cannot run'):
        Ensemble([type(run)(tmp_path / 'whole')], 'jax')
    shutil.copytree(tmp_path / 'whole', tmp_path / 'flipped')
    content = bytearray((tmp_path / 'flipped' / exported.MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / 'flipped' / exported.MODEL).write_bytes(content)
    with pytest.raises(UsageError, match='damaged'):
        Ensemble([type(run)(tmp_path / 'flipped')], 'onnxruntime')
    for name, change, words in (
        ('fixed', {'shape': [1, 32, 32]}, '--shape=any,32,32'),
        ('unjudged', {'rule': None}, 'without thresholds'),
        ('odd', {'image_size': 'big'}, 'does not describe'),
    ):
        shutil.copytree(tmp_path / 'whole', tmp_path / name)
        path = tmp_path / name / exported.DESCRIPTION
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(UsageError, match=words):
            Ensemble([type(run)(tmp_path / name)], 'onnxruntime')
