"""A trained network in JAX, OpenVINO or ONNX Runtime; exports."""
