# SPDX-License-Identifier: Apache-2.0
"""Makes the backend of a name after checking its files; `auto` is the fastest verified one."""

from paddle_dnl.deployment.runtime.backends import OnnxBackend, PaddleBackend
from paddle_dnl.deployment.runtime.deploy_config import DeployConfig
from paddle_dnl.deployment.runtime.openvino_backend import OpenvinoBackend
from paddle_dnl.deployment.runtime.options import BackendOptions
from paddle_dnl.deployment.runtime.selection import choose
from paddle_dnl.deployment.runtime.verified import mkldnn_obstacle
from paddle_dnl.errors import UsageError
from paddle_dnl.log import logger

BACKENDS = (PaddleBackend.name, OnnxBackend.name, OpenvinoBackend.name, "auto")


def _make(name: str, files: DeployConfig, options: BackendOptions):
    """A named backend, after its files were checked."""
    if name == PaddleBackend.name:
        if options.streams:
            raise UsageError("streams are the backend openvino's; the backend paddle has none")
        if options.device == "cpu":
            if options.precision == "int8":
                raise UsageError(
                    "int8 on a CPU is run by the backends onnxruntime and openvino; use one of them, or auto"
                )
            if options.precision != "fp32":
                raise UsageError(
                    f"{options.precision} on a CPU is run by the backend openvino; use --backend openvino or auto"
                )
            obstacle = mkldnn_obstacle(files) if options.enable_mkldnn else None
            if obstacle:
                raise UsageError(f"--enable_mkldnn: not verified for {files.folder} ({obstacle}); run without it")
        files.check_files(files.model, files.params)
        return PaddleBackend(files, options)
    kinds = {kind.name: kind for kind in (OnnxBackend, OpenvinoBackend)}
    if name not in kinds:
        raise UsageError(f"backend {name!r} is not one of {', '.join(BACKENDS)}")
    if options.streams and name != OpenvinoBackend.name:
        raise UsageError(f"streams are the backend openvino's; the backend {name} has none")
    file = files.onnx_of(options.precision)
    if file:
        files.check_files(file)
    return kinds[name](files, options)


def resolve_backend(name: str, files: DeployConfig, options: BackendOptions) -> tuple[str, BackendOptions]:
    """`auto`, or the precision `fastest`, to the fastest verified one on this machine; others stay as they are."""
    if name != "auto" and options.precision != "fastest":
        return name, options
    return choose(files, options, _make, None if name == "auto" else name)


def make_backend(name: str, files: DeployConfig, options: BackendOptions):
    """The backend `paddle`, `onnxruntime` or `openvino`; `auto` takes the fastest verified one on this machine.

    Raises:
        UsageError: unknown name, a device or precision that the backend has not, or oneDNN for a folder whose export did not
            verify it.
        ExportError: files that are missing, damaged or cannot be loaded.
    """
    name, options = resolve_backend(name, files, options)
    backend = _make(name, files, options)
    extras = [options.precision] * (options.precision != "fp32") + ["oneDNN"] * options.enable_mkldnn
    logger.info(" ".join([f"backend {name} on {options.device}", *extras]))
    return backend
