"""Convolution kernels rounded to bfloat16 so that the errors within a kernel cancel.

The input of a convolution that follows a ReLU is never negative, so errors of its weights that do
not cancel shift its output by the same amount everywhere, in every image. Rounded independently,
they add up like a random walk. Here each weight's rounding error is added to the next weight (error
diffusion, as in dithering), so the sum of a kernel is off by at most one rounding error. That costs
nothing at prediction time, and gained more than computing the last layers in float32: see
benchmarks/README.md. That the mean error is what matters is the idea of bias correction (Nagel et
al. 2019, arXiv 1906.04721).
"""

import numpy as np


def round_kernel(kernel: np.ndarray) -> np.ndarray:
    """Rounds a kernel to values that bfloat16 represents exactly.

    Args:
      kernel: float32 [O, I, h, w], finite.

    Returns:
      float32 of the same shape. The sum over each [h, w] differs from the original's by at most
      half a unit in the last place of one weight (up to float32's own rounding); for a 1 x 1
      kernel, the sum over I does.
    """
    outputs = len(kernel)
    taps = kernel.shape[2] * kernel.shape[3]
    # The axis along which errors are passed on comes first: each step works on whole planes.
    if taps > 1:
        steps = kernel.reshape(outputs, -1, taps).transpose(2, 0, 1)
    else:
        steps = kernel.reshape(outputs, -1).T
    steps = np.array(steps, np.float32, order='C')  # a copy
    error = np.zeros_like(steps[0])
    for weights in steps:
        wanted = weights + error
        weights[...] = _nearest(wanted)
        error = wanted - weights
    steps = steps.transpose(1, 2, 0) if taps > 1 else steps.T
    return np.ascontiguousarray(steps).reshape(kernel.shape)


def round_transposed_kernel(kernel: np.ndarray) -> np.ndarray:
    """The same for a transposed convolution of stride 2.

    Args:
      kernel: float32 [I, O, h, w], finite, h and w even.

    Returns:
      float32 of the same shape. An output sees every second tap only, so the sum of those taps is
      kept, for each of the four kinds of outputs.
    """
    inputs, outputs, height, width = kernel.shape
    taps = kernel.reshape(inputs, outputs, height // 2, 2, width // 2, 2)
    phases = np.ascontiguousarray(taps.transpose(3, 5, 1, 0, 2, 4))  # [2, 2, O, I, h / 2, w / 2]
    rounded = round_kernel(phases.reshape(4 * outputs, inputs, height // 2, width // 2))
    rounded = rounded.reshape(phases.shape).transpose(3, 2, 4, 0, 5, 1)
    return np.ascontiguousarray(rounded).reshape(kernel.shape)


def _nearest(x: np.ndarray) -> np.ndarray:
    """The nearest bfloat16, ties to even: the upper half of a float32's bits."""
    bits = x.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)).view(np.float32)
