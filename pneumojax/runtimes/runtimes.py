"""The one seam between a network and what computes it: JAX, OpenVINO or ONNX Runtime.

A runtime makes a `Network` of each member of an ensemble: a function from uint8 squares to
probabilities. Only `inference.ensemble` knows which one is at work.
"""

import importlib.metadata
import importlib.util
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pneumojax.errors import UsageError

NAMES = ('auto', 'jax', 'openvino', 'onnxruntime')
PRECISIONS = ('auto', 'mixed', 'float32', 'bfloat16')

# Starts the prediction of uint8 [B, S, S]; what it returns waits for float32 [B, S, S].
Network = Callable[[np.ndarray], Callable[[], np.ndarray]]


class Choice(NamedTuple):
    """A runtime by name; whether the user named it, or it may give way to JAX."""

    name: str
    precision: str
    named: bool


def choose(runtime: str = 'auto', precision: str = 'auto') -> Choice:
    """Which runtime to use.

    Args:
      runtime: one of `NAMES`. 'auto' is OpenVINO, else ONNX Runtime, where one is installed and
        JAX has no accelerator here; else JAX.
      precision: one of `PRECISIONS`. 'mixed' is bfloat16, and float32 for images whose mask hangs
        on rounding, see `inference.doubt`; OpenVINO alone has it. 'auto' is mixed where OpenVINO
        runs on a processor that has instructions for bfloat16, else float32; with JAX it is the
        run's `model.dtype`.

    Raises:
      UsageError: not a runtime or precision, not installed, or a precision that it does not have.
    """
    if runtime not in NAMES:
        raise UsageError(f'--runtime is {runtime!r}: expected one of {", ".join(NAMES)}')
    if precision not in PRECISIONS:
        raise UsageError(f'--precision is {precision!r}: expected one of {", ".join(PRECISIONS)}')
    name = runtime
    if name == 'auto':
        installed = [n for n in ('openvino', 'onnxruntime') if is_installed(n)]
        if precision in ('mixed', 'bfloat16'):
            installed = [n for n in installed if n == 'openvino']
        name = installed[0] if installed and not has_accelerator() else 'jax'
    elif name != 'jax' and not is_installed(name):
        raise UsageError(
            f"--runtime={name} is not installed; pip install 'pneumojax[cpu]', "
            'or give --runtime=jax'
        )
    if name == 'onnxruntime' and precision in ('mixed', 'bfloat16'):
        raise UsageError(
            f'--precision={precision}: ONNX Runtime computes in float32 on a processor; '
            'give --runtime=openvino or --precision=float32'
        )
    if name == 'jax' and precision == 'mixed':
        raise UsageError(
            '--precision=mixed needs OpenVINO; give --runtime=openvino, or another precision'
        )
    return Choice(name, precision, runtime != 'auto')


def is_installed(package: str) -> bool:
    """Whether a package can be found here; it is not imported."""
    return importlib.util.find_spec(package) is not None


def has_accelerator() -> bool:
    """Whether JAX sees a GPU or TPU.

    JAX takes a second to start, so it is asked only where one of its plugins is installed.
    """
    if os.environ.get('JAX_PLATFORMS') == 'cpu':
        return False
    plugins = importlib.metadata.entry_points(group='jax_plugins')
    if not plugins and not any(is_installed(name) for name in ('jax_plugins', 'libtpu')):
        return False
    import jax

    return jax.default_backend() != 'cpu'
