"""3 x 3 convolutions with a third fewer products, in plain ONNX nodes.

Winograd's minimal filtering F(2, 3), along columns of pixels only (Lavin and Gray 2015, arXiv
1509.09308, nest it in both directions): outputs of an even row and the odd one below it,

    y0 = g0 x-1 + g1 x0 + g2 x1        y1 = g0 x0 + g1 x1 + g2 x2

share two of their products, and have four instead of six together:

    m0 = g0 (x-1 - x1)                  m1 = (g0 + g1 + g2) / 2 (x0 + x1)
    m3 = -g2 (x0 - x2)                  m2 = (g0 - g1 + g2) / 2 (x1 - x0)
    y0 = m0 + m1 + m2                   y1 = m3 + m1 - m2

Each product is a 1 x 3 convolution over maps of half the height. Even and odd rows stay apart from
one convolution to the next: the sums are then of whole maps, which cost next to nothing. Both
directions would save more products, and spend the gain on four times the sums.

In float32 it differs from the 3 x 3 convolution by rounding; in bfloat16, over all four stages of
the encoder, masks agree with float32 as well as without it: see benchmarks/README.md.
"""

from typing import NamedTuple

import numpy as np


class Rows(NamedTuple):
    """A feature map [B, C, H, W], H even, as two of [B, C, H / 2, W]."""

    even: str
    odd: str


def split(graph, x: str) -> Rows:
    """Takes a feature map of an even height apart."""
    last, height, step = graph.ints(2**62), graph.ints(2), graph.ints(2)
    rows = Rows(
        *(graph.node('Slice', [x, graph.ints(first), last, height, step]) for first in (0, 1))
    )
    for row in rows:
        graph.channels[row] = graph.channels[x]
    return rows


def join(graph, rows: Rows, height: int) -> str:
    """The feature map [B, C, height, W]."""
    beside = graph.node('Concat', rows, axis=3)
    x = graph.node('Reshape', [beside, graph.ints(0, 0, height, -1)])
    graph.channels[x] = graph.channels[rows.even]
    return x


def convolution(graph, rows: Rows, kernel, bias, residual: Rows | None = None) -> Rows:
    """A 3 x 3 convolution that pads with zeros, plus a residual, and ReLU.

    Args:
      graph: an `onnx_builder.Graph`.
      rows: its input.
      kernel: [O, I, 3, 3].
      bias: [O].
      residual: added before the ReLU.
    """
    even, odd = rows
    g0, g1, g2 = (kernel[:, :, i : i + 1] for i in range(3))
    no_bias = np.zeros_like(bias)
    m0 = _product(graph, _minus_next(graph, odd, above=True), g0, bias)
    m1 = _product(graph, graph.add(even, odd), (g0 + g1 + g2) / 2, no_bias)
    m2 = _product(graph, _subtract(graph, odd, even), (g0 - g1 + g2) / 2, no_bias)
    m3 = _product(graph, _minus_next(graph, even, above=False), -g2, bias)
    # Sums first, then one addition to each of the outer products, which runtimes fuse with it.
    shared = [graph.add(m1, m2), _subtract(graph, m1, m2)]
    if residual is not None:
        shared = [graph.add(*pair) for pair in zip(shared, residual, strict=True)]
    return Rows(*(graph.relu(graph.add(*p)) for p in zip((m0, m3), shared, strict=True)))


def _product(graph, x, kernel, bias):
    return graph.convolution(x, kernel, bias, relu=False)


def _minus_next(graph, x, above):
    """Each row minus the one below it, with a row of zeros above the first or below the last."""
    channels = graph.channels[x]
    kernel = np.tile(np.array([1.0, -1.0]).reshape(1, 1, 2, 1), (channels, 1, 1, 1))
    pads = [1, 0, 0, 0] if above else [0, 0, 1, 0]
    # A convolution of each channel by itself: slices that runtimes would copy are not needed.
    return graph.convolution(x, kernel, np.zeros(channels), pads=pads, group=channels, relu=False)


def _subtract(graph, x, y):
    difference = graph.node('Sub', [x, y])
    graph.channels[difference] = graph.channels[x]
    return difference
