"""Export to static graphs, their verification, ONNX and int8."""
