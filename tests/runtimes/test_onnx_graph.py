"""The hand-made ONNX graph against the Flax network, run by ONNX Runtime."""

import importlib

import jax
import numpy as np
import pytest

from configs import base
from pneumojax.models import build, tta

onnx = pytest.importorskip('onnx', reason="the extra 'cpu' is not installed")
onnxruntime = pytest.importorskip('onnxruntime', reason="the extra 'cpu' is not installed")
onnx_graph = importlib.import_module('pneumojax.runtimes.onnx_graph')
onnx_builder = importlib.import_module('pneumojax.runtimes.onnx_builder')


def network(
    channels=1, normalization='unit', stages=(1, 1, 1, 1), head='none', seed=0, encoder='resnet34'
):
    """A narrow network whose every weight and statistic is away from where it started."""
    config = base.get_config()
    config.model.channels, config.model.normalization = channels, normalization
    config.model.classification_head, config.model.encoder = head, encoder
    config.model.width, config.model.stage_sizes = 4, stages
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        if len(leaf.shape) > 1:
            values = rng.normal(0, (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape)
        elif path[-1].key in ('scale', 'var'):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            values = rng.normal(0, 0.2, leaf.shape)
        return values.astype(np.float32)

    variables = jax.tree_util.tree_map_with_path(draw, build.variable_shapes(config))
    return config, variables


def run(model, images):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    return session.run(None, {'image': images})[0]


@pytest.mark.parametrize(
    ('channels', 'normalization', 'flips', 'shape', 'head'),
    [
        (1, 'unit', ('horizontal',), (2, 33, 47), 'none'),
        (3, 'imagenet', ('vertical', 'horizontal'), (1, 64, 17), 'gate'),
        (3, 'imagenet_grey', (), (3, 1, 1), 'auxiliary'),
        (1, 'unit', ('horizontal',), (2, 64, 96), 'none'),  # every block upsamples as it convolves
        (1, 'unit', (), (1, 40, 48), 'none'),  # the last three blocks do
    ],
)
def test_it_computes_what_flax_computes_at_any_size(channels, normalization, flips, shape, head):
    config, variables = network(channels, normalization, head=head)
    images = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    expected = jax.jit(tta.make_predict(config, build.make_model(config), flips))(variables, images)
    assert np.ptp(expected) > 0.01 or shape[1:] == (1, 1)
    for dimensions in (shape, ('batch', 'height', 'width')):
        model = onnx_graph.make(
            variables,
            normalization=normalization,
            flips=flips,
            shape=dimensions,
            gated=head == 'gate',
        )
        np.testing.assert_allclose(run(model, images), expected, atol=5e-6)


@pytest.mark.parametrize(
    ('channels', 'normalization', 'shape', 'head'),
    [
        (3, 'symmetric', (2, 64, 96), 'none'),
        (1, 'symmetric', (1, 33, 47), 'gate'),
        (3, 'imagenet', (1, 61, 64), 'none'),
    ],
)
def test_an_efficientnet_lite0_too(channels, normalization, shape, head):
    config, variables = network(channels, normalization, head=head, encoder='efficientnet_lite0')
    images = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    predict = jax.jit(tta.make_predict(config, build.make_model(config), ('horizontal',)))
    expected = predict(variables, images)
    assert np.ptp(expected) > 0.01
    for dimensions in (shape, ('batch', 'height', 'width')):
        model = onnx_graph.make(
            variables, normalization=normalization, flips=('horizontal',), shape=dimensions,
            gated=head == 'gate',
        )  # fmt: skip
        np.testing.assert_allclose(run(model, images), expected, atol=5e-6)


def test_resnet34_has_its_layers_and_no_batch_norm():
    """1 + 2 x 16 + 3 convolutions in the encoder, 10 in the decoder, 1 head; golden.

    At 64 px each of the five first convolutions in the decoder is a transposed one beside, but for
    the last, one for the skip.
    """
    _, variables = network(stages=(3, 4, 6, 3))
    for size, convolutions, resized in ((63, 47, 5), ('size', 47, 5), (64, 46, 0)):
        shape = (1, size, size)
        model = onnx_graph.make(variables, normalization='unit', flips=(), shape=shape)
        kinds = [node.op_type for node in model.graph.node]
        assert kinds.count('Conv') == convolutions
        assert kinds.count('Resize') == resized
        assert kinds.count('ConvTranspose') == 5 - resized
        assert kinds.count('MaxPool') == 1
        assert 'BatchNormalization' not in kinds


def test_metadata_and_names_are_what_the_documentation_says():
    _, variables = network()
    model = onnx_graph.make(
        variables, normalization='unit', flips=(), shape=('batch', 8, 8), metadata={'name': 'tiny'}
    )
    assert {p.key: p.value for p in model.metadata_props} == {'name': 'tiny'}
    assert [i.name for i in model.graph.input] == ['image']
    assert [o.name for o in model.graph.output] == ['probability']
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_layers_that_it_does_not_know_are_refused_by_name():
    options = {'normalization': 'unit', 'flips': (), 'shape': (1, 8, 8)}
    _, variables = network()
    more = {**variables, 'params': {**variables['params'], 'extra': {'kernel': np.ones(1)}}}
    with pytest.raises(onnx_builder.Unknown, match='extra/kernel'):
        onnx_graph.make(more, **options)
    less = {k: v for k, v in variables['params'].items() if k != 'head'}
    with pytest.raises(onnx_builder.Unknown, match='head/kernel'):
        onnx_graph.make({**variables, 'params': less}, **options)
