# SPDX-License-Identifier: Apache-2.0
"""OpenVINO as a backend: the verified ONNX file in float32, bfloat16 or 8 bits."""

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

# Hints for each precision. An int8 file itself defines what is computed in 8 bits; the rest stays in float32. A float16 file has
# its attention in float32, which `ACCURACY` keeps.
_HINTS = {
    "fp32": {"INFERENCE_PRECISION_HINT": "f32"},
    "bf16": {"INFERENCE_PRECISION_HINT": "bf16"},
    "int8": {"INFERENCE_PRECISION_HINT": "f32"},
    "fp16": {"EXECUTION_MODE_HINT": "ACCURACY"},
}
_DEVICES = {"cpu": "CPU", "gpu": "GPU"}
# OPTIMIZATION_CAPABILITIES of a device that computes in a precision.
_CAPABILITIES = {"bf16": "BF16", "fp16": "FP16"}


def openvino_version() -> str | None:
    """None where OpenVINO is not installed."""
    if importlib.util.find_spec("openvino") is None:
        return None
    import openvino

    return openvino.__version__


def has_bf16() -> bool:
    """Whether OpenVINO, which must be installed, computes in bfloat16 on this processor."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _core():
    try:
        import openvino
    except ImportError as error:
        raise not_installed("backend openvino", error, "openvino") from error
    return openvino.Core()


def _require_device(core, device: str, precision: str) -> str:
    """OpenVINO's name of a device that is there and computes in a precision.

    Raises:
        UsageError: it is not there, or lacks the precision.
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
    """OpenVINO, for folders exported with an ONNX file. The device `gpu` (Intel's) was not run on any machine yet.

    Compiled models are cached below `~/.cache/paddle-dnl/openvino`, by content, settings and version. In float32 on a CPU large
    3x3 convolutions are computed by Winograd's algorithm: see `winograd_graph`.

    Args:
        files: the exported folder.
        options: `device`, `cpu_threads`, `streams`, and `precision`: fp32, bf16 or fp16 where the device has it (fp16 for
            folders of `export.py --fp16`), int8 for folders that tools/quantize.py has worked on.

    Attributes:
        parallel: batches that run at the same time.
        input_name, output_name: of the graph.

    Raises:
        ExportError: no ONNX file, or it cannot be loaded.
        UsageError: OpenVINO is not installed, or a device, precision or number of streams that cannot be used.
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
        if cache.is_dir():  # else it was replaced while this process ran
            settings["CACHE_DIR"] = str(cache)
        if device == "CPU":
            # Denormal numbers of a sharp softmax, see OnnxBackend; this changes the mode of the thread that compiles.
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
        """`[N, C, H, W]` float32 to the graph's output.

        Of a model with a fixed batch N may be a multiple of it. With several streams parts of the batch run in parallel.

        Raises:
            ExportError: the graph failed, with the reason.
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
