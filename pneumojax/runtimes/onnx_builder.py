"""Builds an ONNX graph: nodes, and the weights that they take from a network's variables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pneumojax.models.batch_norm import EPSILON

OPSET = 18  # the first whose Split takes a number of parts
IR_VERSION = 8  # the oldest with this opset, so that old runtimes read it
Dimension = int | str


class Unknown(ValueError):
    """The variables hold layers that the graph lacks, or the other way round."""


class Graph:
    """The nodes and weights so far; every weight of the network must be taken once.

    Feature maps are the names of the nodes that compute them.

    Args:
      variables: {'params', 'batch_stats'} of a `UNet`.
    """

    def __init__(self, variables: Mapping[str, Mapping]):
        self._left = {
            (kind, *path): np.asarray(leaf, np.float64)
            for kind in variables
            for path, leaf in _leaves(variables[kind])
        }
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, np.ndarray] = {}
        self.channels: dict[str, int] = {}  # of the outputs of convolutions

    def node(self, op: str, inputs: Sequence[str], name: str = '', **attributes: Any) -> str:
        """Adds a node with one output; returns the output's name."""
        name = name or f'{op.lower()}_{len(self._nodes)}'
        self._nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def split(self, x: str, parts: int) -> list[str]:
        """Adds a node that splits a batch into equal parts; returns their names."""
        name = f'split_{len(self._nodes)}'
        names = [f'{name}_{i}' for i in range(parts)]
        self._nodes.append(helper.make_node('Split', [x], names, name, axis=0, num_outputs=parts))
        return names

    def constant(self, array: np.ndarray | Sequence[int], dtype: type = np.float32) -> str:
        """Adds a weight; equal small ones are stored once."""
        array = np.asarray(array, dtype, order='C')
        name = f'weight_{len(self._weights)}'
        if array.size <= 8:
            name = f'{array.dtype}_{array.shape}_{array.tolist()}'.replace(' ', '')
        self._weights[name] = array
        return name

    def ints(self, *values: int) -> str:
        """Adds int64 constants."""
        return self.constant(values, np.int64)

    def convolution(
        self,
        x: str,
        kernel: np.ndarray,
        bias: np.ndarray,
        *,
        stride: int = 1,
        relu: bool = True,
        same: bool = False,
        groups: int = 1,
    ) -> str:
        """Adds a convolution padded by half its kernel.

        Args:
          x: its input.
          kernel: [O, I, h, w], I of one group.
          bias: [O].
          stride: of both axes.
          relu: whether a ReLU follows.
          same: padded as TensorFlow does instead, which differs for strides above 1.
          groups: of channels that are convolved by themselves.
        """
        height, width = kernel.shape[2:]
        pads: dict[str, Any] = {'pads': [height // 2, width // 2] * 2}
        x = self.node(
            'Conv', [x, self.constant(kernel), self.constant(bias)], kernel_shape=[height, width],
            strides=[stride] * 2, group=groups, **({'auto_pad': 'SAME_UPPER'} if same else pads),
        )  # fmt: skip
        x = self.node('Relu', [x]) if relu else x
        self.channels[x] = len(kernel)
        return x

    def leave_out(self, *path: str) -> None:
        """Drops weights that the graph does not need."""
        self._left = {k: v for k, v in self._left.items() if k[1 : 1 + len(path)] != path}

    def take(self, *path: str) -> np.ndarray:
        """A weight, float64.

        Raises:
          Unknown: the network has no such weight.
        """
        try:
            return self._left.pop(path)
        except KeyError:
            raise Unknown(f'the network has no {"/".join(path)}') from None

    def folded(
        self, path: Sequence[str], conv: str, bn: str, epsilon: float = EPSILON
    ) -> tuple[np.ndarray, np.ndarray]:
        """(kernel [O, I, h, w], bias [O]) of a convolution followed by BatchNorm, float64."""
        kernel = self.take('params', *path, conv, 'kernel').transpose(3, 2, 0, 1)
        scale, shift = (self.take('params', *path, bn, name) for name in ('scale', 'bias'))
        mean, var = (self.take('batch_stats', *path, bn, name) for name in ('mean', 'var'))
        factor = scale / np.sqrt(var + epsilon)
        return kernel * factor[:, None, None, None], shift - mean * factor

    def has(self, *path: str) -> bool:
        """Whether weights below this path of the params or statistics are not taken yet."""
        return any(left[1 : 1 + len(path)] == path for left in self._left)

    def stages(self) -> list[int]:
        """Number of blocks of each stage of a ResNet."""
        names = {path[2] for path in self._left if path[1] == 'encoder'}
        blocks = [name[5:].split('_') for name in names if name.startswith('layer')]
        return [
            sum(stage == str(s) for stage, _ in blocks)
            for s in sorted({int(stage) for stage, _ in blocks})
        ]

    def model(self, shape: Sequence[Dimension], metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The checked model, from `image` to `probability`, both of this shape.

        Raises:
          Unknown: a weight was not taken.
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


def _leaves(
    tree: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), value
