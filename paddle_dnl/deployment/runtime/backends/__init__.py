# SPDX-License-Identifier: Apache-2.0
"""Backends that run an exported graph: Paddle Inference, ONNX Runtime and OpenVINO, each with `run(batch) -> array`."""
