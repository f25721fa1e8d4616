"""OpenVINO and ONNX Runtime: the exported network on a CPU, without JAX.

Both report their use over the network and keep an identifier in the home directory unless they are
told not to before they start, so nothing else in the package imports them.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pneumojax.errors import UsageError
from pneumojax.runtimes import bfloat16_kernels
from pneumojax.runtimes.choose import Network
from pneumojax.system.parallel import cores


def import_openvino() -> Any:
    """The module `openvino`, which sends no telemetry unless someone else imported it before."""
    # Without this package OpenVINO uses a stub of its own. It offers no other switch than a file in
    # the home directory.
    sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
    import openvino

    return openvino


def import_onnxruntime() -> Any:
    """The module `onnxruntime`, which sends no telemetry unless someone else imported it before."""
    os.environ['ORT_DISABLE_TELEMETRY'] = '1'  # its Privacy.md; read once, when it starts
    import onnxruntime

    return onnxruntime


def bfloat16_is_faster(processor: str, flags: set[str]) -> bool:
    """Whether OpenVINO predicts faster in bfloat16 on a processor with instructions for it.

    It takes half of float32's time on an AMD with AVX512-BF16, 1.5 times on an Intel that has these
    but no AMX (benchmarks/README.md).

    Args:
      processor: its name.
      flags: as Linux calls its features; empty where they are not known.
    """
    return 'Intel' not in processor or not flags or 'amx_bf16' in flags


def _processor_flags() -> set[str]:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:  # not Linux
        return set()
    return {flag for line in lines if line.startswith('flags') for flag in line.split()}


class OpenVINO:
    """Predicts one image per request; all cores share the layers of a request.

    Args:
      precision: 'float32', 'bfloat16' or 'bfloat16_checked', which is bfloat16 here: the ensemble
        keeps a second runtime in float32 for the images it predicts again. 'auto' is
        'bfloat16_checked' where `bfloat16_is_faster`, else 'float32'.

    Raises:
      UsageError: bfloat16 on a processor without such instructions.
    """

    name = 'openvino'

    def __init__(self, precision: str = 'auto'):
        self._core = import_openvino().Core()
        has_bfloat16 = 'BF16' in self._core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
        if precision == 'auto':
            processor = self._core.get_property('CPU', 'FULL_DEVICE_NAME')
            faster = has_bfloat16 and bfloat16_is_faster(processor, _processor_flags())
            precision = 'bfloat16_checked' if faster else 'float32'
        elif precision != 'float32' and not has_bfloat16:
            raise UsageError(
                f'--precision={precision}: this processor has no bfloat16 instructions '
                '(AVX512-BF16 or AMX); give --precision=float32'
            )
        self.precision = precision

    def network(self, model: str | bytes, size: int) -> Network:
        """Compiles an ONNX file, given as path or content, for squares of `size` pixels."""
        openvino = import_openvino()
        hint = 'f32' if self.precision == 'float32' else 'bf16'
        read = self._core.read_model(model)
        read.reshape([1, size, size])
        if hint == 'bf16':
            _round_kernels(read)
        options = {
            'INFERENCE_PRECISION_HINT': hint,
            'INFERENCE_NUM_THREADS': cores(),
            'NUM_STREAMS': 1,
        }
        compiled = self._core.compile_model(read, 'CPU', options)

        def start(images: np.ndarray) -> Callable[[], np.ndarray]:
            result = np.empty(images.shape, np.float32)
            request = compiled.create_infer_request()
            for i in range(len(images)):
                # In place: neither the image nor its probabilities are copied.
                image, probability = images[i : i + 1], result[i : i + 1]
                request.set_input_tensor(openvino.Tensor(image, shared_memory=True))
                request.set_output_tensor(openvino.Tensor(probability, shared_memory=True))
                request.infer()
            return lambda: result

        return start


def _round_kernels(model: Any) -> None:
    """Rounds the kernels of an `openvino.Model`; OpenVINO would round each weight by itself."""
    opset13 = import_openvino().opset13
    round_kernel = {
        'Convolution': bfloat16_kernels.round_kernel,
        'ConvolutionBackpropData': bfloat16_kernels.round_transposed_kernel,
    }
    for operation in model.get_ops():
        if rounding := round_kernel.get(operation.get_type_name()):
            kernel = operation.input_value(1).get_node()
            rounded = opset13.constant(rounding(kernel.data))
            operation.input(1).replace_source_output(rounded.output(0))


class OnnxRuntime:
    """Predicts a batch at a time, in float32, on all cores."""

    name, precision = 'onnxruntime', 'float32'

    def network(self, model: str | bytes, size: int = 0) -> Network:
        """Compiles an ONNX file, given as path or content; `size` is not needed."""
        del size
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores()
        session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])

        def start(images: np.ndarray) -> Callable[[], np.ndarray]:
            result = session.run(None, {'image': images})[0]
            return lambda: result

        return start
