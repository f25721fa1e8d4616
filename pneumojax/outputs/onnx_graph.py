"""Our variables as an ONNX graph, made by hand: one node for each layer, BatchNorm folded.

From grey values to probabilities, all in one file, so that whoever opens it needs no code of ours:

    image        uint8 [batch, height, width], 0 to 255, MONOCHROME2 sense
    probability  float32 [batch, height, width], of a pneumothorax at each pixel

Normalisation, sigmoid and the mean over flips are inside. Library converters were tried and
mistranslate the padded max-pool (jax2onnx 0.17); this is one network, and it is short.

BatchNorm at prediction is y = (x - mean) * scale / sqrt(var + eps) + bias, a convolution's kernel
and bias times constants: folded in float64, once. Equal input channels of the stem are summed into
one where that is exact; under 'imagenet' they differ by constants, which no single channel can make
up for where zeros are padded (see `models.normalize`), and stay three.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pneumojax.models import normalize

OPSET = 18  # the first whose Split counts parts
IR_VERSION = 8  # the oldest that knows this opset: old runtimes read it too
EPSILON = 1e-5  # of BatchNorm, as in `models.resnet`
Dimension = int | str


class Unknown(ValueError):
    """The variables hold layers that this graph does not have; the message names them."""


def make(
    variables: Mapping[str, Any],
    *,
    normalization: str,
    flips: Sequence[str],
    shape: tuple[Dimension, Dimension, Dimension],
    gated: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Builds the graph of `inference.tta.make_predict` with these variables.

    Args:
      variables: {'params', 'batch_stats'} of a `UNet`.
      normalization: one of `models.normalize.KINDS`.
      flips: any of 'horizontal' and 'vertical'; probabilities are averaged with theirs.
      shape: (batch, height, width); each a number, or a name where any number will do.
      gated: pixels' probabilities are multiplied by the image head's, see `models.unet.gate`; where
        they are not, a head that the network has is left out.
      metadata: kept in the file's `metadata_props`.

    Returns:
      A checked model.

    Raises:
      Unknown: a layer in the variables that is not in the graph.
    """
    graph = _Graph(variables)
    x = graph.node('Cast', [graph.node('Unsqueeze', ['image', graph.ints(1)])], to=_FLOAT)
    views = [x] + [_flip(graph, x, flip) for flip in flips]
    x = graph.node('Concat', views, axis=0) if flips else x
    x, deepest = _logits(graph, x, normalization, shape)
    x = graph.node('Sigmoid', [x])
    if gated:
        x = graph.node('Mul', [x, _image_head(graph, deepest)])
    else:
        graph.leave_out('image_head')
    if flips:
        parts = graph.node('Split', [x], outputs=len(views), axis=0, num_outputs=len(views))
        parts = [parts[0]] + [
            _flip(graph, p, flip) for p, flip in zip(parts[1:], flips, strict=True)
        ]
        x = graph.node('Mean', parts)
    graph.node('Squeeze', [x, graph.ints(1)], name='probability')
    return graph.model(shape, metadata or {})


_FLOAT = TensorProto.FLOAT


def _logits(graph, x, normalization, shape):
    """[B, 1, H, W] floats of 0 to 255 -> logits [B, 1, H, W] and the deepest feature map."""
    kernel, bias = graph.folded(('encoder',), 'conv1', 'bn1')
    channels = kernel.shape[1]
    if normalization == 'unit':
        kernel = kernel.sum(axis=1, keepdims=True) / 255
    else:
        if normalization == 'imagenet' and channels == 3:
            mean, std = np.array(normalize.IMAGENET_MEAN), np.array(normalize.IMAGENET_STD)
        else:
            mean, std = np.array([normalize.GREY_MEAN]), np.array([normalize.GREY_STD])
            kernel = kernel.sum(axis=1, keepdims=True)
        column = (1, len(mean), 1, 1)
        x = graph.node('Mul', [x, graph.constant((1 / (255 * std)).reshape(column))])
        x = graph.node('Sub', [x, graph.constant((mean / std).reshape(column))])
    x = graph.convolution(x, kernel, bias, stride=2)
    skips = [x]
    x = graph.node('MaxPool', [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for stage, blocks in enumerate(graph.stages()):
        for block in range(blocks):
            path = ('encoder', f'layer{stage + 1}_{block}')
            x = _residual_block(graph, x, path, stride=2 if stage and not block else 1)
        skips.append(x)
    x = deepest = skips.pop()
    for i in range(5):
        skip = skips.pop() if skips else None
        first, second = (
            graph.folded(('decoder', f'block{i}'), f'conv{j}', f'bn{j}') for j in (1, 2)
        )
        # A cropped row would be seen by the kernels as if it were there: exact for even sizes only.
        if all(isinstance(size, int) and size % 2 ** (5 - i) == 0 for size in shape[1:]):
            x = _upsampled_convolution(graph, x, skip, *first)
        else:
            x = _upsample(graph, x, 'image' if skip is None else skip)
            if skip is not None:
                x = graph.node('Concat', [x, skip], axis=1)
            x = graph.convolution(x, *first)
        x = graph.convolution(x, *second)
    kernel = graph.take('params', 'head', 'kernel').transpose(3, 2, 0, 1)
    return _head(graph, x, kernel, graph.take('params', 'head', 'bias'), shape), deepest


def _head(graph, x, kernel, bias, shape):
    """The last convolution, to one channel: [B, 1, H, W].

    Processors compute 16 channels for the price of one. So where the size allows, one step of a
    convolution with stride 4 computes 4 x 4 pixels, as channels: the kernel of each is the same
    3 x 3 at another place among 6 x 6.
    """
    if not all(isinstance(size, int) and size % 4 == 0 for size in shape[1:]):
        return graph.convolution(x, kernel, bias, relu=False)
    pixels = np.zeros((4, 4, kernel.shape[1], 6, 6))
    for row in range(4):
        for column in range(4):
            pixels[row, column, :, row : row + 3, column : column + 3] = kernel[0]
    kernel, bias = pixels.reshape(16, -1, 6, 6), np.tile(bias, 16)
    x = graph.node(
        'Conv', [x, graph.constant(kernel), graph.constant(bias)],
        kernel_shape=[6, 6], strides=[4, 4], pads=[1, 1, 1, 1],
    )  # fmt: skip
    return graph.node('DepthToSpace', [x], blocksize=4, mode='DCR')


def _image_head(graph, deepest):
    """Probability [B, 1, 1, 1] that there is a lesion at all."""
    kernel = graph.take('params', 'image_head', 'kernel').T[:, :, None, None]
    x = graph.node('GlobalAveragePool', [deepest])
    x = graph.convolution(x, kernel, graph.take('params', 'image_head', 'bias'), relu=False)
    return graph.node('Sigmoid', [x])


def _residual_block(graph, x, path, stride):
    y = graph.convolution(x, *graph.folded(path, 'conv1', 'bn1'), stride=stride)
    y = graph.convolution(y, *graph.folded(path, 'conv2', 'bn2'), relu=False)
    if graph.has(*path, 'downsample_conv'):
        folded = graph.folded(path, 'downsample_conv', 'downsample_bn')
        x = graph.convolution(x, *folded, stride=stride, relu=False)
    total = graph.node('Relu', [graph.node('Add', [y, x])])
    graph.channels[total] = graph.channels[y]
    return total


def _upsampled_convolution(graph, x, skip, kernel, bias):
    """The 3 x 3 convolution and ReLU over x, doubled by nearest neighbour, and the skip beside it.

    Pixel i of x is seen as 2i and 2i + 1. Output j = 2i + d sees it, by row and by column, through
    the taps t with j + t - 1 in {2i, 2i + 1}: t = 1 - d and 2 - d, as far as there are. So it is a
    transposed convolution of stride 2, whose kernel holds sums of taps for d = -1, 0, 1, 2: each
    output has 4 products instead of 9.
    """
    sums = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
    channels = graph.channels[x]
    transposed = np.einsum('dy,ex,oiyx->iode', sums, sums, kernel[:, :channels])
    here = bias if skip is None else np.zeros_like(bias)
    x = graph.node(
        'ConvTranspose', [x, graph.constant(transposed), graph.constant(here)],
        kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1],
    )  # fmt: skip
    if skip is not None:
        beside = graph.convolution(skip, kernel[:, channels:], bias, relu=False)
        x = graph.node('Add', [beside, x])
    return graph.node('Relu', [x])


def _upsample(graph, x, to):
    """Doubles by nearest neighbour and crops the far edge to the size of `to`.

    Resized to a size 2n or 2n - 1, output i reads input floor(i n / size), which is floor(i / 2)
    for both: no crop is needed.
    """
    options = {
        'mode': 'nearest', 'coordinate_transformation_mode': 'asymmetric', 'nearest_mode': 'floor',
    }  # fmt: skip
    axes = {'start': 1, 'end': 3} if to == 'image' else {'start': 2, 'end': 4}
    kept = graph.node('Shape', [x], start=0, end=2)
    # All four sizes: OpenVINO 2025.0 does not know the attribute `axes`.
    sizes = graph.node('Concat', [kept, graph.node('Shape', [to], **axes)], axis=0)
    return graph.node('Resize', [x, '', '', sizes], **options)


def _flip(graph, x, flip):
    axis = {'horizontal': 3, 'vertical': 2}[flip]
    first_to_last = [graph.ints(-1), graph.ints(-(2**62)), graph.ints(axis), graph.ints(-1)]
    return graph.node('Slice', [x, *first_to_last])


class _Graph:
    """Nodes and weights so far; every weight must be taken once."""

    def __init__(self, variables):
        self._left = {
            (kind, *path): np.asarray(leaf, np.float64)
            for kind in variables
            for path, leaf in _leaves(variables[kind])
        }
        self._nodes, self._weights = [], {}
        self.channels = {}  # of outputs of convolutions

    def node(self, op, inputs, outputs=1, name=None, **attributes):
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
        return self.constant(values, np.int64)

    def convolution(self, x, kernel, bias, stride=1, relu=True):
        """Adds a convolution that pads as PyTorch's does, [O, I, h, w] kernel."""
        pad = kernel.shape[2] // 2
        x = self.node(
            'Conv', [x, self.constant(kernel), self.constant(bias)],
            kernel_shape=list(kernel.shape[2:]), strides=[stride] * 2, pads=[pad] * 4,
        )  # fmt: skip
        x = self.node('Relu', [x]) if relu else x
        self.channels[x] = len(kernel)
        return x

    def has(self, *path):
        return any(name[1 : 1 + len(path)] == path for name in self._left)

    def leave_out(self, *path):
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

    def model(self, shape, metadata):
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
