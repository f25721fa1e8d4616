"""Convolutions over pairs of rows, run by ONNX Runtime, against XLA's."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip('onnx', reason="the extra 'cpu' is not installed")
onnxruntime = pytest.importorskip('onnxruntime', reason="the extra 'cpu' is not installed")
builder = importlib.import_module('pneumojax.runtimes.onnx_builder')
winograd = importlib.import_module('pneumojax.runtimes.onnx_winograd')


def run(graph, images, output):
    """Evaluates the nodes so far on images [B, I, H, W]."""
    value = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(
        graph._nodes, 'test', [value('x', onnx.TensorProto.FLOAT, images.shape)],
        [value(output, onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in graph._weights.items()],
    )  # fmt: skip
    model = onnx.helper.make_model(
        made, ir_version=builder.IR_VERSION,
        opset_imports=[onnx.helper.make_opsetid('', builder.OPSET)],
    )  # fmt: skip
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    return session.run([output], {'x': images})[0]


def ordinary(x, kernel, bias):
    y = jax.lax.conv_general_dilated(
        x, jnp.asarray(kernel, jnp.float32), (1, 1), 'SAME', precision='highest'
    )
    return y + jnp.asarray(bias, jnp.float32)[:, None, None]


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 2),
    channels=st.integers(1, 5),
    height=st.sampled_from([2, 4, 10]),
    width=st.integers(1, 7),
    residual=st.booleans(),
)
def test_two_in_a_row_are_two_ordinary_convolutions(seed, batch, channels, height, width, residual):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(batch, channels, height, width)).astype(np.float32)
    kernels = rng.normal(size=(2, channels, channels, 3, 3))
    biases = rng.normal(size=(2, channels))
    graph = builder.Graph({})
    graph.channels['x'] = channels
    rows = winograd.split(graph, 'x')
    middle = winograd.convolution(graph, rows, kernels[0], biases[0])
    last = winograd.convolution(graph, middle, kernels[1], biases[1], rows if residual else None)
    result = winograd.join(graph, last, height)

    x = jnp.asarray(images)
    y = jax.nn.relu(ordinary(x, kernels[0], biases[0]))
    y = ordinary(y, kernels[1], biases[1])
    expected = np.asarray(jax.nn.relu(y + x if residual else y))
    actual = run(graph, images, result)
    np.testing.assert_allclose(actual, expected, atol=2e-5 * max(1, np.abs(expected).max()))
