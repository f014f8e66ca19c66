# SPDX-License-Identifier: Apache-2.0
"""Backend with OpenVINO: the verified ONNX file in float32, bfloat16, float16 or int8."""

import importlib.util
from typing import TYPE_CHECKING

from paddle_dnl.deployment.runtime.backends import winograd_graph
from paddle_dnl.deployment.runtime.backends.onnx_thread import in_onnx_thread
from paddle_dnl.deployment.runtime.operators import require_known_operators
from paddle_dnl.deployment.runtime.options import BackendOptions, default_threads, first_line
from paddle_dnl.errors import ExportError, UsageError
from paddle_dnl.files.caches import package_cache
from paddle_dnl.optional import not_installed

import numpy as np

if TYPE_CHECKING:
    from paddle_dnl.deployment.runtime.deploy_config import DeployConfig

# Hints for each precision. An int8 file defines which nodes are computed in 8 bits; the others stay in float32. A
# float16 file has its attention in float32, which `ACCURACY` preserves.
_HINTS = {
    "fp32": {"INFERENCE_PRECISION_HINT": "f32"},
    "bf16": {"INFERENCE_PRECISION_HINT": "bf16"},
    "int8": {"INFERENCE_PRECISION_HINT": "f32"},
    "fp16": {"EXECUTION_MODE_HINT": "ACCURACY"},
}
_DEVICES = {"cpu": "CPU", "gpu": "GPU"}
# Entry of a device's OPTIMIZATION_CAPABILITIES that a precision requires.
_CAPABILITIES = {"bf16": "BF16", "fp16": "FP16"}


def openvino_version() -> str | None:
    """Imports OpenVINO and returns its version; None if it is not installed."""
    if importlib.util.find_spec("openvino") is None:
        return None
    import openvino

    return openvino.__version__


def has_bf16() -> bool:
    """Whether OpenVINO, which must be installed, supports bfloat16 on this processor."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _core():
    try:
        import openvino
    except ImportError as error:
        raise not_installed("backend openvino", error, "openvino") from error
    return openvino.Core()


def _require_device(core, device: str, precision: str) -> str:
    """Returns OpenVINO's name of a device.

    Raises:
        UsageError: the device is not available or does not support the precision.
    """
    name = _DEVICES.get(device)
    if name is None or not any(found.split(".")[0] == name for found in core.available_devices):
        raise UsageError(
            f"backend openvino: no device {device}; OpenVINO found {', '.join(core.available_devices).lower() or 'none'}"
        )
    capability = _CAPABILITIES.get(precision)
    if capability and capability not in core.get_property(name, "OPTIMIZATION_CAPABILITIES"):
        needs = {
            "bf16": "a CPU needs AVX512_BF16 or AMX",
            "fp16": "a CPU needs AVX512_FP16 or AMX of that kind; use fp32 or bf16",
        }[precision]
        raise UsageError(
            f"backend openvino: {core.get_property(name, 'FULL_DEVICE_NAME')} has no {precision} ({needs})"
        )
    return name


class OpenvinoBackend:
    """OpenVINO, for folders exported with an ONNX file. The device `gpu` (Intel) was not tested on a GPU.

    Compiled models are cached in `~/.cache/paddle-dnl/openvino` by content, settings and version. In float32 on a CPU,
    large 3x3 convolutions are computed with Winograd's algorithm, see `winograd_graph`.

    Args:
        files: the exported folder.
        options: `device`, `cpu_threads`, `streams`, and `precision`: `fp32`, `bf16` or `fp16` where the device supports
            it (`fp16` after `export.py --fp16`), or `int8` (after tools/quantize.py).

    Attributes:
        parallel: number of batches that run concurrently.
        input_name, output_name: names of the graph's input and output.

    Raises:
        ExportError: the ONNX file is missing or cannot be loaded.
        UsageError: OpenVINO is not installed, or does not support the device, precision or number of streams.
    """

    name = "openvino"

    def __init__(self, files: "DeployConfig", options: BackendOptions):
        if options.precision not in _HINTS:
            raise UsageError(f"backend openvino has no precision {options.precision}; use {', '.join(_HINTS)}")
        threads = options.cpu_threads or default_threads()
        self.parallel = options.streams or 1
        if not 1 <= self.parallel <= threads:
            raise UsageError(f"streams {options.streams}: must be from 1 to the number of threads, {threads}")
        path = files.require_onnx(options.precision, self.name)
        core = _core()
        device = _require_device(core, options.device, options.precision)
        require_known_operators(path)
        settings = {**_HINTS[options.precision], "NUM_STREAMS": self.parallel}
        cache = package_cache("openvino")
        if cache.is_dir():  # it may have been replaced while this process runs
            settings["CACHE_DIR"] = str(cache)
        if device == "CPU":
            # See OnnxBackend for denormal numbers. The setting changes the mode of the thread that compiles the model.
            settings |= {"INFERENCE_NUM_THREADS": threads, "CPU_DENORMALS_OPTIMIZATION": True}
        try:
            source = str(path)
            if device == "CPU" and options.precision == "fp32" and winograd_graph.is_enabled():
                model = core.read_model(path)
                if winograd_graph.replace_convolutions(model):
                    source = model
            self._model = in_onnx_thread(core.compile_model, source, device, settings)
            self._requests = [self._model.create_infer_request() for _ in range(self.parallel)]
        except Exception as error:
            raise ExportError(f"{path}: cannot be loaded by OpenVINO: {first_line(error)}") from error
        self.input_name, self.output_name = self._model.inputs[0].any_name, self._model.outputs[0].any_name
        self._fixed_batch = files.fixed_batch

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Returns the graph's output for a batch `[N, C, H, W]` float32.

        With a fixed batch size, N may be a multiple of it. With several streams, parts of the batch run concurrently.

        Raises:
            ExportError: the graph failed; the message has the reason.
        """
        batch = np.ascontiguousarray(batch, np.float32)
        size = self._fixed_batch or -(-len(batch) // self.parallel)
        try:
            return in_onnx_thread(self._run, [batch[start : start + size] for start in range(0, len(batch), size)])
        except Exception as error:
            raise ExportError(f"OpenVINO failed: {first_line(error)}") from error

    def _run(self, parts: list[np.ndarray]) -> np.ndarray:
        outputs = []
        for start in range(0, len(parts), self.parallel):
            group = parts[start : start + self.parallel]
            running = self._requests[: len(group)]
            try:
                for request, part in zip(running, group, strict=True):
                    request.start_async([part])
            finally:
                for request in running:
                    request.wait()
            outputs += [request.get_output_tensor(0).data.copy() for request in running]
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)
