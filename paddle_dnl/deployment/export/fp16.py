# SPDX-License-Identifier: Apache-2.0
"""The ONNX graph with weights and arithmetic in float16, for GPUs; `sensitive_nodes`, input and output stay in float32."""

from pathlib import Path
from typing import TYPE_CHECKING

from paddle_dnl.deployment.export.onnx_nodes import normalise, sensitive_nodes
from paddle_dnl.deployment.runtime.deploy_config import FP16_NAME
from paddle_dnl.errors import ExportError

if TYPE_CHECKING:
    from paddle_dnl.deployment.runtime.deploy_config import DeployConfig

# Largest difference of logits, relative to the largest one, and share of pixels with another class.
TOLERANCE = 0.05
DISAGREEMENT = 0.005


def convert(files: "DeployConfig") -> Path:
    """Writes `model_fp16.onnx` beside `model.onnx`, by ONNX Runtime's converter.

    Args:
        files: with `onnx`; `onnx_fp16` is set.

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
            # paddle2onnx passes an empty tensor of scales with the sizes; after a cast ONNX no longer recognises it as empty.
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
    # It adds a cast to float32 for each reader of a tensor, all with the same name, and at the end of the graph.
    nodes = {node.output[0]: node for node in small.graph.node}
    del small.graph.node[:]
    small.graph.node.extend(nodes.values())
    ordered = OnnxModel(small)
    ordered.topological_sort()
    onnx.checker.check_model(ordered.model)
    onnx.save(ordered.model, str(files.folder / FP16_NAME))
    files.onnx_fp16 = FP16_NAME
    return files.folder / FP16_NAME
