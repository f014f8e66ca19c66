# SPDX-License-Identifier: Apache-2.0
"""Backend with ONNX Runtime: its CPU provider, and CUDA and TensorRT where it is built with them."""

from typing import TYPE_CHECKING

from paddle_dnl.deployment.runtime.backends.onnx_thread import in_onnx_thread
from paddle_dnl.deployment.runtime.devices import gpu_of_process
from paddle_dnl.deployment.runtime.operators import require_known_operators
from paddle_dnl.deployment.runtime.options import BackendOptions, default_threads, first_line
from paddle_dnl.errors import ExportError, UsageError
from paddle_dnl.files.caches import package_cache
from paddle_dnl.optional import not_installed

import numpy as np

if TYPE_CHECKING:
    from paddle_dnl.deployment.runtime.deploy_config import DeployConfig


def onnx_providers(options: BackendOptions, available: list[str]) -> list:
    """Returns ONNX Runtime's execution providers in order of preference, each a name or (name, settings).

    TensorRT and CUDA were not tested on a GPU.

    Args:
        options: `device`, `use_trt` and `precision`.
        available: providers that this ONNX Runtime was built with.

    Raises:
        UsageError: no provider for the device.
    """
    if options.device == "cpu":
        return ["CPUExecutionProvider"]
    wanted = {"gpu": ["TensorrtExecutionProvider"] * options.use_trt + ["CUDAExecutionProvider"]}.get(
        options.device, []
    )
    missing = [name for name in wanted if name not in available]
    if missing or not wanted:
        lacks = missing[0] if missing else f"provider for {options.device}"
        raise UsageError(
            f"backend onnxruntime: this ONNX Runtime has no {lacks} (it has {', '.join(available)}); "
            "install onnxruntime-gpu in place of onnxruntime, or use --device cpu"
        )
    device_id = gpu_of_process()
    providers: list = [("CUDAExecutionProvider", {"device_id": device_id}), "CPUExecutionProvider"]
    if options.use_trt:
        settings = {
            "device_id": device_id,
            # A float16 file defines the precision of each node; the attention's float32 nodes stay in float32.
            "trt_fp16_enable": options.precision == "fp16",
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(package_cache("tensorrt")),
        }
        providers.insert(0, ("TensorrtExecutionProvider", settings))
    return providers


class OnnxBackend:
    """ONNX Runtime, for folders exported with an ONNX file. Its GPU providers were not tested on a GPU.

    Args:
        files: the exported folder.
        options: `device`, `use_trt`, `cpu_threads`, and `precision`: `fp32`, `int8` (after tools/quantize.py), or
            `fp16` (after `export.py --fp16`; on a CPU only for comparison, because it has no float16 arithmetic and is
            slow).

    Attributes:
        input_name, output_name: names of the graph's input and output.

    Raises:
        ExportError: the ONNX file is missing or cannot be loaded.
        UsageError: onnxruntime is not installed, or does not support the device or precision.
    """

    name = "onnxruntime"

    def __init__(self, files: "DeployConfig", options: BackendOptions):
        if options.precision not in ("fp32", "fp16", "int8"):
            raise UsageError(f"backend onnxruntime has no precision {options.precision}; use fp32, fp16 or int8")
        path = files.require_onnx(options.precision, self.name)
        try:
            import onnxruntime
        except ImportError as error:
            raise not_installed("backend onnxruntime", error, "onnxruntime") from error
        providers = onnx_providers(options, onnxruntime.get_available_providers())
        require_known_operators(path)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.cpu_threads or default_threads()
        settings.log_severity_level = 3
        # A sharp softmax produces denormal numbers (below 1e-38), which slow down a CPU: DNLNet-R50 at 512 x 1024 takes
        # 9.0 s with them and 3.0 s without. The setting does not affect the caller's thread, see onnx_thread.
        settings.add_session_config_entry("session.set_denormal_as_zero", "1")
        try:
            self._session = in_onnx_thread(onnxruntime.InferenceSession, str(path), settings, providers=providers)
        except Exception as error:
            raise ExportError(f"{path}: cannot be loaded: {first_line(error)}") from error
        # Where a GPU's libraries are missing, ONNX Runtime only prints a warning and falls back to the CPU.
        first = providers[0] if isinstance(providers[0], str) else providers[0][0]
        if self._session.get_providers()[0] != first:
            raise UsageError(
                f"backend onnxruntime: {first} cannot be started here (are its driver and libraries installed?); use --device cpu"
            )
        self.input_name, self.output_name = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Returns the graph's output for a batch `[N, C, H, W]` float32.

        Raises:
            ExportError: the graph failed; the message has the reason.
        """
        try:
            feed = {self.input_name: np.ascontiguousarray(batch, np.float32)}
            return in_onnx_thread(self._session.run, None, feed)[0]
        except Exception as error:
            raise ExportError(f"ONNX Runtime failed: {first_line(error)}") from error
