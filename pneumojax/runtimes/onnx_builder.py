"""An ONNX graph in the making: nodes, and the weights that they take from a network's variables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18  # the first whose Split counts parts
IR_VERSION = 8  # the oldest that knows this opset: old runtimes read it too
EPSILON = 1e-5  # of BatchNorm, as in `models.resnet`
Dimension = int | str


class Unknown(ValueError):
    """The variables hold layers that this graph does not have; the message names them."""


class Graph:
    """Nodes and weights so far; every weight of the network must be taken once.

    Args:
      variables: {'params', 'batch_stats'} of a `UNet`.
    """

    def __init__(self, variables: Mapping[str, Any]):
        self._left = {
            (kind, *path): np.asarray(leaf, np.float64)
            for kind in variables
            for path, leaf in _leaves(variables[kind])
        }
        self._nodes, self._weights = [], {}
        self.channels: dict[str, int] = {}  # of feature maps

    def node(self, op, inputs, outputs=1, name=None, **attributes) -> Any:
        """Adds a node; returns the name of its output, or of its several outputs."""
        name = name or f'{op.lower()}_{len(self._nodes)}'
        names = [name] if outputs == 1 else [f'{name}_{i}' for i in range(outputs)]
        self._nodes.append(helper.make_node(op, inputs, names, name, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, array, dtype=np.float32):
        """Adds a weight; equal small ones are kept once."""
        array = np.ascontiguousarray(array, dtype)
        name = f'weight_{len(self._weights)}'
        if array.size <= 8:
            name = f'{array.dtype}_{array.shape}_{array.tolist()}'.replace(' ', '')
        self._weights[name] = array
        return name

    def ints(self, *values):
        """Adds int64 constants."""
        return self.constant(values, np.int64)

    def convolution(self, x, kernel, bias, *, stride=1, pads=None, group=1, relu=True):
        """Adds a convolution.

        Args:
          x: name of its input.
          kernel: [O, I / group, h, w].
          bias: [O].
          stride: of both axes.
          pads: [top, left, bottom, right]; by default as PyTorch's layers here do, half a kernel.
          group: as many independent parts.
          relu: whether a ReLU follows.
        """
        height, width = kernel.shape[2:]
        x = self.node(
            'Conv', [x, self.constant(kernel), self.constant(bias)],
            kernel_shape=[height, width], strides=[stride] * 2, group=group,
            pads=pads or [height // 2, width // 2] * 2,
        )  # fmt: skip
        self.channels[x] = len(kernel)
        return self.relu(x) if relu else x

    def relu(self, x):
        """Adds a ReLU after a feature map."""
        result = self.node('Relu', [x])
        self.channels[result] = self.channels[x]
        return result

    def add(self, x, y):
        """Adds the sum of two feature maps."""
        total = self.node('Add', [x, y])
        self.channels[total] = self.channels[x]
        return total

    def leave_out(self, *path):
        """Weights that the graph does without."""
        self._left = {k: v for k, v in self._left.items() if k[1 : 1 + len(path)] != path}

    def take(self, *path):
        """A weight, float64."""
        try:
            return self._left.pop(path)
        except KeyError:
            raise Unknown(f'the network has no {"/".join(path)}') from None

    def folded(self, path, conv, bn):
        """(kernel [O, I, h, w], bias [O]) of a convolution followed by BatchNorm, float64."""
        kernel = self.take('params', *path, conv, 'kernel').transpose(3, 2, 0, 1)
        scale, shift = (self.take('params', *path, bn, name) for name in ('scale', 'bias'))
        mean, var = (self.take('batch_stats', *path, bn, name) for name in ('mean', 'var'))
        factor = scale / np.sqrt(var + EPSILON)
        return kernel * factor[:, None, None, None], shift - mean * factor

    def stages(self):
        """Blocks of each encoder stage."""
        names = {path[2] for path in self._left if path[1] == 'encoder'}
        blocks = [name[5:].split('_') for name in names if name.startswith('layer')]
        return [
            sum(stage == str(s) for stage, _ in blocks)
            for s in sorted({int(stage) for stage, _ in blocks})
        ]

    def model(self, shape: Sequence[Dimension], metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The checked model, from `image` to `probability`, both of this shape.

        Raises:
          Unknown: weights that no layer took.
        """
        if self._left:
            unknown = ', '.join('/'.join(path) for path in sorted(self._left)[:5])
            raise Unknown(f'the network has layers that the ONNX graph lacks: {unknown}')
        graph = helper.make_graph(
            self._nodes,
            'pneumojax',
            [helper.make_tensor_value_info('image', TensorProto.UINT8, shape)],
            [helper.make_tensor_value_info('probability', TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(array, name) for name, array in self._weights.items()],
        )
        model = helper.make_model(
            graph, producer_name='pneumojax', ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid('', OPSET)],
        )  # fmt: skip
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        return model


def _leaves(tree, path=()):
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value
