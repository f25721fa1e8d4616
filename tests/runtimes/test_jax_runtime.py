"""JAX as a runtime: what `--precision=float32` means to a TPU or GPU."""

import re

import jax
import numpy as np
import pytest
from jax import export as jax_export

from pneumojax.models import build, tta
from pneumojax.prediction.ensemble import Ensemble
from pneumojax.runtimes import ensemble_member, export
from pneumojax.system.devices import Devices
from tests.tiny_runs import tiny_config, write_run


def products(text, operations='convolution|dot_general'):
    """(type of the first factor, precisions) of every convolution and matrix product of a program.

    StableHLO names the precision of each factor: DEFAULT is one pass of bfloat16 on a TPU and TF32
    on a GPU, HIGHEST is float32.
    """
    found = []
    for line in text.splitlines():
        if re.search(rf'stablehlo\.({operations})\b', line):
            precision = set(re.findall(r'\b(DEFAULT|HIGH|HIGHEST)\b', line)) or {'DEFAULT'}
            dtype = re.search(r': \(tensor<(?:[?\d]+x)*(\w+)>', line)[1]
            found.append((dtype, *sorted(precision)))
    return found


def lowered(function, config, platform):
    images = jax.ShapeDtypeStruct((2, config.image_size, config.image_size), np.uint8)
    traced = jax.jit(function).trace(build.variable_shapes(config), images)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize('platform', ['tpu', 'cuda'])
@pytest.mark.parametrize(
    ('precision', 'expected'),
    [('float32', ('f32', 'HIGHEST')), ('auto', ('f32', 'DEFAULT')),
     ('bfloat16', ('bf16', 'DEFAULT'))],
)  # fmt: skip
def test_float32_is_exact_on_accelerators_and_auto_is_as_trained(
    tmp_path, monkeypatch, platform, precision, expected
):
    functions = []
    monkeypatch.setattr(Devices, 'compile', lambda self, f, name: functions.append(f) or f)
    run = write_run(tmp_path)
    Ensemble([run], 'jax', precision)
    (function,) = functions
    # Matrix products only rearrange kernels, see `models.phases`.
    *network, head = products(lowered(function, run.config(), platform), 'convolution')
    # The stem, two for each of 4 encoder blocks (3 of them projected) and of 5 decoder blocks.
    assert network == [expected] * (1 + 2 * 4 + 3 + 2 * 5)
    assert head == ('f32', expected[1])  # logits are float32 in any case


def test_the_classification_head_is_exact_too():
    config = tiny_config()
    config.model.classification_head = 'gate'
    function = tta.make_predict(config, build.make_model(config), (), True)
    text = lowered(function, config, 'tpu')
    assert 'stablehlo.dot_general' in text
    assert set(products(text)) == {('f32', 'HIGHEST')}


@pytest.mark.slow
def test_an_exported_network_is_exact(tmp_path):
    run = write_run(tmp_path)
    member = ensemble_member.to_export(run, run.config())
    content, _ = export.stablehlo_and_description(member, (1, 32, 32))
    text = jax_export.deserialize(bytearray(content)).mlir_module()
    assert set(products(text)) == {('f32', 'HIGHEST')}
