"""Which runtime computes a prediction: JAX, OpenVINO or ONNX Runtime.

A runtime turns each member of an ensemble into a `Network`, a function from uint8 squares to
probabilities. Only `prediction.ensemble` knows which one is at work.
"""

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pneumojax.errors import UsageError

NAMES = ('auto', 'jax', 'openvino', 'onnxruntime')
PRECISIONS = ('auto', 'bfloat16_checked', 'float32', 'bfloat16')
FORMER_PRECISIONS = {'mixed': 'bfloat16_checked'}  # what earlier versions called them

# Starts the prediction of uint8 [B, S, S]; what it returns waits for float32 [B, S, S].
Network = Callable[[np.ndarray], Callable[[], np.ndarray]]


class Choice(NamedTuple):
    """The runtime to use.

    Attributes:
      name: 'jax', 'openvino' or 'onnxruntime'.
      precision: one of `PRECISIONS`.
      named: whether the user asked for this runtime; one that 'auto' chose may give way to JAX.
    """

    name: str
    precision: str
    named: bool


def choose(runtime: str = 'auto', precision: str = 'auto') -> Choice:
    """Which runtime to use.

    Args:
      runtime: one of `NAMES`. 'auto' is OpenVINO, else ONNX Runtime, if one is installed and JAX
        has no accelerator; else JAX.
      precision: one of `PRECISIONS`. 'bfloat16_checked' predicts in bfloat16, then again in float32
        where the mask is sensitive to rounding (see `prediction.borderline`); only OpenVINO has it.
        'auto' is 'bfloat16_checked' where that makes OpenVINO faster, else 'float32'; with JAX it
        is the run's `model.dtype`, multiplied as the device does by default, whereas 'float32'
        multiplies float32 as float32 on every device.

    Raises:
      UsageError: an unknown runtime or precision, a runtime that is not installed, or a precision
        that the runtime does not support.
    """
    if runtime not in NAMES:
        raise UsageError(f'--runtime is {runtime!r}: expected one of {", ".join(NAMES)}')
    if precision in FORMER_PRECISIONS:
        raise UsageError(
            f'--precision={precision} is now called {FORMER_PRECISIONS[precision]}; give that name'
        )
    if precision not in PRECISIONS:
        raise UsageError(f'--precision is {precision!r}: expected one of {", ".join(PRECISIONS)}')
    name = runtime
    bfloat16_needed = precision in ('bfloat16_checked', 'bfloat16')
    if name == 'auto':
        candidates = ['openvino'] if bfloat16_needed else ['openvino', 'onnxruntime']
        installed = [candidate for candidate in candidates if is_installed(candidate)]
        name = installed[0] if installed and not has_accelerator() else 'jax'
    elif name != 'jax' and not is_installed(name):
        raise UsageError(
            f"--runtime={name} is not installed; pip install 'pneumojax[cpu]', "
            'or give --runtime=jax'
        )
    if name == 'onnxruntime' and bfloat16_needed:
        raise UsageError(
            f'--precision={precision}: ONNX Runtime supports only float32 on a CPU; '
            'give --runtime=openvino or --precision=float32'
        )
    if name == 'jax' and precision == 'bfloat16_checked':
        raise UsageError(
            '--precision=bfloat16_checked needs OpenVINO; give --runtime=openvino, '
            'or another precision'
        )
    return Choice(name, precision, runtime != 'auto')


def is_installed(package: str) -> bool:
    """Whether a package is installed; it is not imported."""
    return importlib.util.find_spec(package) is not None


def has_accelerator() -> bool:
    """Whether JAX sees a GPU or TPU.

    JAX takes a second to start, so it is asked only if one of its plugins is installed, or if
    JAX_PLATFORMS names one: then it says whether that is there.
    """
    named = os.environ.get('JAX_PLATFORMS')
    if named == 'cpu':
        return False
    plugins = importlib.metadata.entry_points(group='jax_plugins')
    if not (named or plugins or any(is_installed(name) for name in ('jax_plugins', 'libtpu'))):
        return False
    from pneumojax.system.devices import local_devices

    return local_devices()[0].platform != 'cpu'
