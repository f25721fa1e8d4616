"""A network's variables as an ONNX graph, written node by node, with BatchNorm folded.

The graph goes from grey values to probabilities, so that other programs need none of our code:

    image        uint8 [batch, height, width], 0 to 255, MONOCHROME2 sense
    probability  float32 [batch, height, width], of a pneumothorax at each pixel

Normalisation, the sigmoid and the mean over flips are inside. Library converters mistranslated the
padded max-pool (jax2onnx 0.17); one short network is easily written by hand.

BatchNorm at prediction time is y = (x - mean) * scale / sqrt(var + eps) + bias, so it is folded
into the convolution before it, in float64. The stem's equal input channels are summed into one
where that is exact. Under 'imagenet' they differ by constants, which no single channel can
reproduce at the zero padding (see `models.normalize`), so they stay three.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from pneumojax.models import efficientnet, normalize
from pneumojax.runtimes.onnx_builder import Dimension, Graph
from pneumojax.runtimes.onnx_upsampling import is_exact, upsampled_convolution

_FLOAT = onnx.TensorProto.FLOAT


def make(
    variables: Mapping[str, Mapping],
    *,
    normalization: str,
    flips: Sequence[str],
    shape: tuple[Dimension, Dimension, Dimension],
    gated: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Builds the graph of `models.tta.make_predict` with these variables.

    Args:
      variables: {'params', 'batch_stats'} of a `UNet`.
      normalization: one of `config_schema.NORMALIZATIONS`.
      flips: any of 'horizontal' and 'vertical'; probabilities are averaged with those of the flips.
      shape: (batch, height, width); each a number, or a name if any number will do.
      gated: whether pixels' probabilities are multiplied by the classification head's, see
        `models.unet.gate`; otherwise such a head is left out.
      metadata: stored in the file's `metadata_props`.

    Returns:
      A checked model.

    Raises:
      onnx_builder.Unknown: the variables hold a layer that the graph lacks.
    """
    graph = Graph(variables)
    x = graph.node('Cast', [graph.node('Unsqueeze', ['image', graph.ints(1)])], to=_FLOAT)
    views = [x] + [_flip(graph, x, flip) for flip in flips]
    x = graph.node('Concat', views, axis=0) if flips else x
    x, deepest = _logits(graph, x, normalization, shape)
    x = graph.node('Sigmoid', [x])
    if gated:
        x = graph.node('Mul', [x, _image_probability(graph, deepest)])
    else:
        graph.leave_out('image_head')
    if flips:
        first, *others = graph.split(x, len(views))
        flipped = [_flip(graph, part, flip) for part, flip in zip(others, flips, strict=True)]
        x = graph.node('Mean', [first, *flipped])
    graph.node('Squeeze', [x, graph.ints(1)], name='probability')
    return graph.model(shape, metadata or {})


def _logits(
    graph: Graph, x: str, normalization: str, shape: tuple[Dimension, Dimension, Dimension]
) -> tuple[str, str]:
    """[B, 1, H, W] floats of 0 to 255 -> logits [B, 1, H, W] and the deepest feature map."""
    lite0 = graph.has('encoder', 'stem_conv')
    skips = (_efficientnet_lite0 if lite0 else _resnet)(graph, x, normalization)
    x = deepest = skips.pop()
    for block in range(5):
        skip = skips.pop() if skips else None
        path = ('decoder', f'block{block}')
        first, second = (graph.folded(path, f'conv{i}', f'bn{i}') for i in (1, 2))
        if is_exact(shape[1:], halvings=5 - block):
            x = upsampled_convolution(graph, x, skip, *first)
        else:
            x = _upsample(graph, x, 'image' if skip is None else skip)
            if skip is not None:
                x = graph.node('Concat', [x, skip], axis=1)
            x = graph.convolution(x, *first)
        x = graph.convolution(x, *second)
    kernel = graph.take('params', 'head', 'kernel').transpose(3, 2, 0, 1)
    bias = graph.take('params', 'head', 'bias')
    return graph.convolution(x, kernel, bias, relu=False), deepest


def _resnet(graph: Graph, x: str, normalization: str) -> list[str]:
    """Five feature maps."""
    x, kernel, bias = _first(graph, x, normalization, *graph.folded(('encoder',), 'conv1', 'bn1'))
    features = [graph.convolution(x, kernel, bias, stride=2)]
    x = graph.node('MaxPool', features, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for stage, blocks in enumerate(graph.stages()):
        for block in range(blocks):
            x = _residual_block(graph, x, stage, block)
        features.append(x)
    return features


def _efficientnet_lite0(graph: Graph, x: str, normalization: str) -> list[str]:
    """Five feature maps."""

    def folded(path: Sequence[str], layer: str) -> tuple[np.ndarray, np.ndarray]:
        return graph.folded(path, f'{layer}_conv', f'{layer}_bn', efficientnet.EPSILON)

    def relu6(x: str) -> str:
        clipped = graph.node('Clip', [x, *(graph.constant(np.array(end)) for end in (0, 6))])
        graph.channels[clipped] = graph.channels[x]
        return clipped

    x, kernel, bias = _first(graph, x, normalization, *folded(('encoder',), 'stem'))
    x = relu6(graph.convolution(x, kernel, bias, stride=2, same=True, relu=False))
    features = []
    for index, (stage, stride) in enumerate(efficientnet.BLOCKS):
        path, y = ('encoder', f'block{index}'), x
        if stage.expand > 1:
            y = relu6(graph.convolution(y, *folded(path, 'expand'), relu=False))
        kernel, bias = folded(path, 'depthwise')
        depthwise: Any = {'stride': stride, 'same': True, 'groups': len(kernel), 'relu': False}
        y = relu6(graph.convolution(y, kernel, bias, **depthwise))
        y = graph.convolution(y, *folded(path, 'project'), relu=False)
        channels = graph.channels[y]
        if stride == 1 and channels == graph.channels[x]:
            y = graph.node('Add', [x, y])
            graph.channels[y] = channels
        x = y
        if efficientnet.ends_map(index):
            features.append(x)
    return features


def _first(
    graph: Graph, x: str, normalization: str, kernel: np.ndarray, bias: np.ndarray
) -> tuple[str, np.ndarray, np.ndarray]:
    """Normalisation, as far as the first convolution's kernel does not do it: (x, kernel, bias)."""
    if normalization == 'unit':
        kernel = kernel.sum(axis=1, keepdims=True) / 255
    else:
        mean, std = map(np.array, normalize.mean_and_std(normalization, kernel.shape[1]))
        if len(mean) == 1:
            kernel = kernel.sum(axis=1, keepdims=True)
        channels = (1, len(mean), 1, 1)
        x = graph.node('Mul', [x, graph.constant((1 / (255 * std)).reshape(channels))])
        x = graph.node('Sub', [x, graph.constant((mean / std).reshape(channels))])
    return x, kernel, bias


def _residual_block(graph: Graph, x: str, stage: int, block: int) -> str:
    """Two convolutions beside a shortcut; the first block of all stages but the first halves it."""
    path = ('encoder', f'layer{stage + 1}_{block}')
    halves = stage > 0 and block == 0
    y = graph.convolution(x, *graph.folded(path, 'conv1', 'bn1'), stride=2 if halves else 1)
    if halves:
        shortcut = graph.folded(path, 'downsample_conv', 'downsample_bn')
        x = graph.convolution(x, *shortcut, stride=2, relu=False)
    y = graph.convolution(y, *graph.folded(path, 'conv2', 'bn2'), relu=False)
    block_output = graph.node('Relu', [graph.node('Add', [y, x])])
    graph.channels[block_output] = graph.channels[y]
    return block_output


def _image_probability(graph: Graph, deepest: str) -> str:
    """Probability [B, 1, 1, 1] that the image shows a pneumothorax at all."""
    kernel = graph.take('params', 'image_head', 'kernel').T[:, :, None, None]
    x = graph.node('GlobalAveragePool', [deepest])
    x = graph.convolution(x, kernel, graph.take('params', 'image_head', 'bias'), relu=False)
    return graph.node('Sigmoid', [x])


def _upsample(graph: Graph, x: str, to: str) -> str:
    """Doubles by nearest neighbour and crops the far edge to the size of `to`.

    Resized to a size 2n or 2n - 1, output i reads input floor(i n / size), which is floor(i / 2)
    for both: no crop is needed.
    """
    options: dict[str, Any] = {
        'mode': 'nearest', 'coordinate_transformation_mode': 'asymmetric', 'nearest_mode': 'floor',
    }  # fmt: skip
    start = 1 if to == 'image' else 2
    kept = graph.node('Shape', [x], start=0, end=2)
    # All four sizes: OpenVINO 2025.0 does not know the attribute `axes`.
    sizes = graph.node(
        'Concat', [kept, graph.node('Shape', [to], start=start, end=start + 2)], axis=0
    )
    return graph.node('Resize', [x, '', '', sizes], **options)


def _flip(graph: Graph, x: str, flip: str) -> str:
    axis = {'horizontal': 3, 'vertical': 2}[flip]
    first_to_last = [graph.ints(-1), graph.ints(-(2**62)), graph.ints(axis), graph.ints(-1)]
    return graph.node('Slice', [x, *first_to_last])
