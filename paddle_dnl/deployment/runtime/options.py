# SPDX-License-Identifier: Apache-2.0
"""Options of backends, and the number of threads."""

import os
from dataclasses import dataclass


@dataclass
class BackendOptions:
    """Options of a backend.

    Attributes:
        device: `cpu`, `gpu`, or `xpu`, `npu`, `mlu` where this Paddle is built for it (not run on any machine yet).
        cpu_threads: None takes OMP_NUM_THREADS.
        enable_mkldnn: use oneDNN on CPU; only for folders whose export verified it.
        precision: `int8` on a CPU is for the backends onnxruntime and openvino, after tools/quantize.py, `bf16` for openvino;
            `fp16` is for GPUs: of onnxruntime and openvino with an export that has it, and TensorRT's of Paddle Inference.
            `fastest`: fp32, or what the folder's images verified.
        streams: batches that openvino runs at the same time, each with its share of the threads; default 1.
        use_trt: TensorRT on GPU, of Paddle Inference and ONNX Runtime (not verified on any machine yet).
        min_subgraph_size, auto_tuned_shape_file: of TensorRT in Paddle Inference.
        collect_shapes_file: write the shapes that occur in the graph there, for a later run with `auto_tuned_shape_file`.
    """

    device: str = "cpu"
    cpu_threads: int | None = None
    enable_mkldnn: bool = False
    use_trt: bool = False
    precision: str = "fp32"
    streams: int | None = None
    min_subgraph_size: int = 3
    auto_tuned_shape_file: str | None = None
    collect_shapes_file: str | None = None


def default_threads() -> int:
    """Number of threads: OMP_NUM_THREADS, which programs set at start, else one per core."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else os.cpu_count() or 1


def first_line(error: Exception) -> str:
    """The line of a long native error message that names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in reversed(lines):
        if "Error" in line:
            return line
    return lines[0] if lines else type(error).__name__
