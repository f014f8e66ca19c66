# SPDX-License-Identifier: Apache-2.0
"""Export to static graphs, their verification, ONNX and int8."""
