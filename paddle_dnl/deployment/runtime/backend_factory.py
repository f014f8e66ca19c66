# SPDX-License-Identifier: Apache-2.0
"""An engine by its name, after its files were checked; `auto` is the fastest verified one."""

from paddle_dnl.deployment.runtime.backends import EngineOptions, OnnxEngine, PaddleEngine, onnx_file
from paddle_dnl.deployment.runtime.deploy_config import DeployConfig
from paddle_dnl.deployment.runtime.selection import choose
from paddle_dnl.deployment.runtime.verified import mkldnn_obstacle
from paddle_dnl.errors import UsageError
from paddle_dnl.log import logger


def _make(name: str, files: DeployConfig, options: EngineOptions):
    """A named engine, after its files were checked."""
    if name == PaddleEngine.name:
        if options.device == "cpu":
            _require_possible_on_cpu(files, options)
        files.check_files(files.model, files.params)
        return PaddleEngine(files, options)
    if name != OnnxEngine.name:
        raise UsageError(f"engine {name!r} is not one of paddle, onnxruntime, auto")
    if options.device != "cpu":
        raise UsageError(f"engine {name} runs on cpu only here; use --device cpu, or the engine paddle")
    file = onnx_file(files, options)
    if file:
        files.check_files(file)
    return OnnxEngine(files, options)


def _require_possible_on_cpu(files: DeployConfig, options: EngineOptions) -> None:
    """Refuses int8 in Paddle Inference and oneDNN that was not verified."""
    if options.precision == "int8":
        raise UsageError("int8 on a CPU is run by the engine onnxruntime; use --engine onnxruntime or auto")
    obstacle = mkldnn_obstacle(files) if options.enable_mkldnn else None
    if obstacle:
        raise UsageError(f"--enable_mkldnn: not verified for {files.folder} ({obstacle}); run without it")


def resolve_engine(name: str, files: DeployConfig, options: EngineOptions) -> tuple[str, EngineOptions]:
    """`auto` to the fastest verified engine on this machine with its options; other names stay as they are."""
    if name != "auto":
        return name, options
    return choose(files, options, _make)


def make_engine(name: str, files: DeployConfig, options: EngineOptions):
    """The engine `paddle` or `onnxruntime`; `auto` takes the fastest verified one on this machine.

    Raises:
        UsageError: unknown name, a device or precision that the engine has not, or oneDNN for a folder whose export did not
            verify it.
        ExportError: files that are missing, damaged or cannot be loaded.
    """
    name, options = resolve_engine(name, files, options)
    engine = _make(name, files, options)
    extras = [options.precision] * (options.precision != "fp32") + ["oneDNN"] * options.enable_mkldnn
    logger.info(" ".join([f"engine {name} on {options.device}", *extras]))
    return engine
