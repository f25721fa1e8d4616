"""Nearest-neighbour upsampling and the 3 x 3 convolution after it, as one transposed convolution.

It is faster, nothing else: without it a prediction of many images takes 1.13 times the CPU time
(benchmarks/README.md). `runtimes.onnx_graph` uses it where it is exact.
"""

from collections.abc import Sequence

import numpy as np

from pneumojax.runtimes.onnx_builder import Dimension, Graph


def is_exact(size: Sequence[Dimension], halvings: int) -> bool:
    """Whether an image of this size can be halved so often without a remainder.

    Otherwise the upsampled map has to be cropped, and a transposed convolution would see the
    cropped row.
    """
    return all(isinstance(side, int) and side % 2**halvings == 0 for side in size)


def upsampled_convolution(
    graph: Graph, x: str, skip: str | None, kernel: np.ndarray, bias: np.ndarray
) -> str:
    """The convolution and ReLU over x, upsampled to twice its size, and the skip beside it.

    Pixel i of x becomes 2i and 2i + 1. Output j = 2i + d sees it, by row and by column, through the
    taps t with j + t - 1 in {2i, 2i + 1}: t = 1 - d and 2 - d, as far as they exist. So it is a
    transposed convolution of stride 2 whose kernel holds sums of taps for d = -1, 0, 1, 2: each
    output takes 4 products instead of 9.

    Args:
      graph: to which the nodes are added.
      x: [B, C, H, W], from a convolution.
      skip: [B, D, 2 H, 2 W], or None.
      kernel: [O, C + D, 3, 3].
      bias: [O].

    Returns:
      [B, O, 2 H, 2 W].
    """
    taps = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])  # [d + 1, t]
    channels = graph.channels[x]
    transposed = np.einsum('dy,ex,oiyx->iode', taps, taps, kernel[:, :channels])
    x = graph.node(
        'ConvTranspose',
        [x, graph.constant(transposed), graph.constant(bias if skip is None else 0 * bias)],
        kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1],
    )  # fmt: skip
    if skip is not None:
        y = graph.convolution(skip, kernel[:, channels:], bias, relu=False)
        x = graph.node('Add', [y, x])
    return graph.node('Relu', [x])
