"""Float32 kernels rounded to bfloat16 so that their errors do not add up.

What a convolution sees after a ReLU is never negative, so errors of its weights that do not cancel
shift its output, everywhere and in every image. Rounded one by one they add up like a random walk.
Here what one weight lost is given to the next (as dithering does with grey values), so that the sum
of each kernel is kept to one rounding error. That costs nothing when predicting, and was worth more
than float32 in the last layers: see benchmarks/README.md. The idea that the mean error is what
matters is that of bias correction (Nagel et al. 2019, arXiv 1906.04721).
"""

import numpy as np


def to_bfloat16(kernel: np.ndarray) -> np.ndarray:
    """Rounds a kernel to values that bfloat16 holds.

    Args:
      kernel: float32 [O, I, h, w], finite.

    Returns:
      float32 of the same shape. Of each [h, w] the sum differs from the original's by at most half
      a unit in the last place of one weight (give or take float32's own rounding); of a 1 x 1
      kernel that holds for the sum over I. Zeros stay zeros.
    """
    outputs = len(kernel)
    taps = kernel.shape[2] * kernel.shape[3]
    # The axis along which errors are handed on comes first: each step works on whole planes.
    if taps > 1:
        steps = kernel.reshape(outputs, -1, taps).transpose(2, 0, 1)
    else:
        steps = kernel.reshape(outputs, -1).T
    steps = np.array(steps, np.float32, order='C')  # a copy
    lost = np.zeros_like(steps[0])
    for weights in steps:
        # A weight of zero is no tap at all, as around the pixels of `outputs.onnx_graph`'s head.
        wanted = np.where(weights == 0, np.float32(0), weights + lost)
        rounded = _nearest(wanted)
        lost = np.where(weights == 0, lost, wanted - rounded)
        weights[...] = rounded
    steps = steps.transpose(1, 2, 0) if taps > 1 else steps.T
    return np.ascontiguousarray(steps).reshape(kernel.shape)


def transposed_to_bfloat16(kernel: np.ndarray) -> np.ndarray:
    """The same for a transposed convolution of stride 2.

    Args:
      kernel: float32 [I, O, h, w], finite, h and w even.

    Returns:
      float32 of the same shape. An output is seen by every second tap only: it is the sum of those
      that is kept, for each of the four kinds of outputs.
    """
    inputs, outputs, height, width = kernel.shape
    taps = kernel.reshape(inputs, outputs, height // 2, 2, width // 2, 2)
    phases = np.ascontiguousarray(taps.transpose(3, 5, 1, 0, 2, 4))  # [2, 2, O, I, h / 2, w / 2]
    rounded = to_bfloat16(phases.reshape(4 * outputs, inputs, height // 2, width // 2))
    rounded = rounded.reshape(phases.shape).transpose(3, 2, 4, 0, 5, 1)
    return np.ascontiguousarray(rounded).reshape(kernel.shape)


def _nearest(x: np.ndarray) -> np.ndarray:
    """The nearest bfloat16, ties to even: the upper half of a float32's bits."""
    bits = x.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)).view(np.float32)
