"""Our variables as an ONNX graph, made by hand, BatchNorm folded.

From grey values to probabilities, all in one file, so that whoever opens it needs no code of ours:

    image        uint8 [batch, height, width], 0 to 255, MONOCHROME2 sense
    probability  float32 [batch, height, width], of a pneumothorax at each pixel

Normalisation, sigmoid and the mean over flips are inside. Library converters were tried and
mistranslate the padded max-pool (jax2onnx 0.17); this is one network, and it is short.

Where height and width are numbers that halvings divide, layers are arranged for processors, which
takes a quarter of their time away: `onnx_winograd` in the encoder, one transposed convolution for
doubling and convolving in the decoder, 4 x 4 pixels a step in the head. Where they are names, each
layer is one node.

BatchNorm at prediction is y = (x - mean) * scale / sqrt(var + eps) + bias, a convolution's kernel
and bias times constants: folded in float64, once. Equal input channels of the stem are summed into
one where that is exact; under 'imagenet' they differ by constants, which no single channel can make
up for where zeros are padded (see `models.normalize`), and stay three.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from pneumojax.models import normalize
from pneumojax.runtimes import onnx_winograd as winograd
from pneumojax.runtimes.onnx_builder import Dimension, Graph

_FLOAT = onnx.TensorProto.FLOAT


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
      normalization: one of `config_schema.NORMALIZATIONS`.
      flips: any of 'horizontal' and 'vertical'; probabilities are averaged with theirs.
      shape: (batch, height, width); each a number, or a name where any number will do.
      gated: pixels' probabilities are multiplied by the image head's, see `models.unet.gate`; where
        they are not, a head that the network has is left out.
      metadata: kept in the file's `metadata_props`.

    Returns:
      A checked model.

    Raises:
      onnx_builder.Unknown: a layer in the variables that is not in the graph.
    """
    graph = Graph(variables)
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
    graph.channels[x] = len(kernel)
    for stage, blocks in enumerate(graph.stages()):
        x = _stage(graph, x, stage, blocks, shape[1])
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
    kernel = pixels.reshape(16, -1, 6, 6)
    x = graph.convolution(x, kernel, np.tile(bias, 16), stride=4, pads=[1] * 4, relu=False)
    return graph.node('DepthToSpace', [x], blocksize=4, mode='DCR')


def _image_head(graph, deepest):
    """Probability [B, 1, 1, 1] that there is a lesion at all."""
    kernel = graph.take('params', 'image_head', 'kernel').T[:, :, None, None]
    x = graph.node('GlobalAveragePool', [deepest])
    x = graph.convolution(x, kernel, graph.take('params', 'image_head', 'bias'), relu=False)
    return graph.node('Sigmoid', [x])


def _stage(graph, x, stage, blocks, height):
    """Residual blocks of one size, the first of which halves it, but for the first stage's."""
    by_rows = isinstance(height, int) and height % 2 ** (stage + 3) == 0  # its own height is even
    # Feature maps are `winograd.Rows` or names.
    convolution: Any = winograd.convolution if by_rows else _convolution
    split: Any = functools.partial(winograd.split, graph) if by_rows else lambda x: x
    for block in range(blocks):
        path = ('encoder', f'layer{stage + 1}_{block}')
        first, second = (graph.folded(path, f'conv{i}', f'bn{i}') for i in (1, 2))
        if stage and not block:
            beside = graph.folded(path, 'downsample_conv', 'downsample_bn')
            y = split(graph.convolution(x, *first, stride=2))
            x = split(graph.convolution(x, *beside, stride=2, relu=False))
        else:
            x = x if block else split(x)
            y = convolution(graph, x, *first)
        x = convolution(graph, y, *second, x)
    return winograd.join(graph, x, height // 2 ** (stage + 2)) if by_rows else x


def _convolution(graph, x, kernel, bias, residual=None):
    if residual is None:
        return graph.convolution(x, kernel, bias)
    return graph.relu(graph.add(graph.convolution(x, kernel, bias, relu=False), residual))


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
    graph.channels[x] = len(kernel)
    if skip is not None:
        x = graph.add(graph.convolution(skip, kernel[:, channels:], bias, relu=False), x)
    return graph.relu(x)


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
