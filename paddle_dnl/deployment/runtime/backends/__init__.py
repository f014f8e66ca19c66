# SPDX-License-Identifier: Apache-2.0
"""What runs an exported graph: Paddle Inference, ONNX Runtime, OpenVINO, each with `run(batch) -> array`."""
