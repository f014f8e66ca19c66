# SPDX-License-Identifier: Apache-2.0
"""Options of backends, the default number of threads, and the line of an error that names the cause."""

import os
from dataclasses import dataclass

from paddle_dnl.config.choices import EXPORTED_PRECISIONS
from paddle_dnl.errors import UsageError


@dataclass
class BackendOptions:
    """Options of a backend. What needs a GPU or another accelerator was not tested on such hardware.

    Attributes:
        device: `cpu`, `gpu`, or `xpu`, `npu`, `mlu` with a Paddle that is built for it.
        cpu_threads: number of threads; None: `default_threads()`.
        enable_mkldnn: use oneDNN in Paddle Inference on a CPU; only for folders whose export verified it.
        use_trt: use TensorRT on a GPU, in Paddle Inference or ONNX Runtime.
        precision: `fp32`; on a CPU `int8` (onnxruntime and openvino, after tools/quantize.py) or `bf16` (openvino); on
            a GPU `fp16` (onnxruntime and openvino with a float16 export, Paddle Inference with TensorRT) or `int8`
            (Paddle Inference with TensorRT); `fastest`: fp32 or a precision that was verified with images.
        streams: batches that openvino runs concurrently, each with its share of the threads; default 1.
        min_subgraph_size, auto_tuned_shape_file: settings of TensorRT in Paddle Inference.
        collect_shapes_file: file to which the tensor shapes of the graph are written, for a later run with
            `auto_tuned_shape_file`.

    Raises:
        UsageError: an unknown precision.
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

    def __post_init__(self):
        if self.precision not in EXPORTED_PRECISIONS:
            raise UsageError(f"precision {self.precision!r}: must be one of {', '.join(EXPORTED_PRECISIONS)}")


def default_threads() -> int:
    """Returns OMP_NUM_THREADS, which programs set at start, else the number of cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else os.cpu_count() or 1


def first_line(error: Exception) -> str:
    """Returns the line of a long native error message that names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in reversed(lines):
        if "Error" in line:
            return line
    return lines[0] if lines else type(error).__name__
