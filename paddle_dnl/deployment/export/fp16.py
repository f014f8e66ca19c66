# SPDX-License-Identifier: Apache-2.0
"""Converts the ONNX graph to float16 for GPUs; `sensitive_nodes`, input and output stay in float32."""

from pathlib import Path

from paddle_dnl.deployment.export.onnx_nodes import normalise, sensitive_nodes
from paddle_dnl.deployment.runtime.deploy_config import FP16_NAME, DeployConfig
from paddle_dnl.errors import ExportError

# Largest difference of logits, relative to the largest one, and share of pixels with another class.
TOLERANCE = 0.05
DISAGREEMENT = 0.005


def convert(files: DeployConfig) -> Path:
    """Writes `model_fp16.onnx` beside `model.onnx`, by ONNX Runtime's converter.

    Args:
        files: of a folder with ONNX; `onnx_fp16` is set.

    Raises:
        ExportError: the graph cannot be converted.
    """
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = onnx.load(str(files.folder / files.onnx))
    normalise(model)
    for node in model.graph.node:
        if node.op_type == "Resize" and len(node.input) == 4 and node.input[3]:
            # paddle2onnx passes an empty `scales` tensor beside `sizes`; behind a cast ONNX does not recognise it as empty.
            node.input[2] = ""
    try:
        small = convert_float_to_float16(
            model,
            keep_io_types=True,
            op_block_list=[*DEFAULT_OP_BLOCK_LIST, "Resize"],
            node_block_list=sorted(sensitive_nodes(model)),
        )
    except Exception as error:  # any error of the converter
        raise ExportError(f"{files.folder / files.onnx}: cannot be converted to float16: {error}") from error
    # The converter adds one cast per consumer of a tensor, all with the same name, at the end of the graph.
    nodes = {node.output[0]: node for node in small.graph.node}
    del small.graph.node[:]
    small.graph.node.extend(nodes.values())
    ordered = OnnxModel(small)
    ordered.topological_sort()
    onnx.checker.check_model(ordered.model)
    onnx.save(ordered.model, str(files.folder / FP16_NAME))
    files.onnx_fp16 = FP16_NAME
    return files.folder / FP16_NAME
