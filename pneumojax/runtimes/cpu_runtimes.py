"""OpenVINO and ONNX Runtime: the exported network on a processor, without JAX."""

import numpy as np

from pneumojax.errors import UsageError
from pneumojax.runtimes import rounding
from pneumojax.runtimes.runtimes import Network
from pneumojax.system.parallel import cores


class OpenVINO:
    """Each image is a request of its own; the layers of one are shared by all cores.

    Args:
      precision: 'float32', 'bfloat16' or 'mixed', which is bfloat16 here: whoever asks for it has a
        runtime in float32 too. 'auto' is mixed where the processor has instructions for bfloat16
        (AVX512-BF16, AMX): without them it would be emulated, and slower.
    """

    name = 'openvino'

    def __init__(self, precision: str = 'auto'):
        import openvino

        self._core = openvino.Core()
        able = 'BF16' in self._core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
        if precision == 'auto':
            precision = 'mixed' if able else 'float32'
        elif precision != 'float32' and not able:
            raise UsageError(
                f'--precision={precision}: this processor has no instructions for bfloat16 '
                '(AVX512-BF16 or AMX); give --precision=float32'
            )
        self.precision = precision

    def network(self, model: str | bytes, size: int) -> Network:
        """Compiles an ONNX file, or its content, for squares of `size` pixels."""
        import openvino

        hint = 'f32' if self.precision == 'float32' else 'bf16'

        read = self._core.read_model(model)
        read.reshape([1, size, size])
        if hint == 'bf16':
            _round_kernels(read)
        compiled = self._core.compile_model(
            read, 'CPU',
            {
                'INFERENCE_PRECISION_HINT': hint,
                'INFERENCE_NUM_THREADS': cores(),
                'NUM_STREAMS': 1,
            },
        )  # fmt: skip

        def start(images):
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


def _round_kernels(model) -> None:
    """OpenVINO would round each weight by itself; after this there is nothing left to round."""
    from openvino import opset13

    round_kernel = {
        'Convolution': rounding.to_bfloat16,
        'ConvolutionBackpropData': rounding.transposed_to_bfloat16,
    }
    for operation in model.get_ops():
        if kind := round_kernel.get(operation.get_type_name()):
            kernel = operation.input_value(1).get_node()
            rounded = opset13.constant(kind(kernel.data))
            operation.input(1).replace_source_output(rounded.output(0))


class OnnxRuntime:
    """One batch at a time, in float32, on all cores."""

    name, precision = 'onnxruntime', 'float32'

    def network(self, model: str | bytes, size: int = 0) -> Network:
        """Compiles an ONNX file, or its content; the size is the images'."""
        import onnxruntime

        del size
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores()
        session = onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])

        def start(images):
            result = session.run(None, {'image': images})[0]
            return lambda: result

        return start
