# SPDX-License-Identifier: Apache-2.0
"""`--engine auto`: the fastest of an exported folder's verified engines on this machine; measured once, then remembered."""

import hashlib
import json
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from paddle_dnl.deployment.runtime.backends import EngineOptions, OnnxEngine, PaddleEngine, default_threads
from paddle_dnl.deployment.runtime.deploy_config import DeployConfig
from paddle_dnl.deployment.runtime.verified import mkldnn_obstacle, paddle_version
from paddle_dnl.files.atomic import write_text
from paddle_dnl.files.caches import writable_cache
from paddle_dnl.log import logger
from paddle_dnl.optional import install_hint
from paddle_dnl.profile.measuring import processor_name, seconds_of_runs
from paddle_dnl.startup.threads import available_cores

import numpy as np

# What stands for a free size and a free batch.
_FREE = (1, 3, 256, 512)
_TIMED_RUNS = 2


def candidates(files: DeployConfig, options: EngineOptions) -> dict[str, tuple[str, EngineOptions]]:
    """The engines that may run this folder as asked: what the log calls each -> (engine, options)."""
    paddle_only = {PaddleEngine.name: (PaddleEngine.name, options)}
    if options.precision == "int8" and options.device == "cpu":
        return {"onnxruntime int8": (OnnxEngine.name, options)}
    if options.device != "cpu" or options.enable_mkldnn:
        return paddle_only
    found = paddle_only.copy() if paddle_version() else {}
    for label, chosen, obstacle in (
        ("paddle with oneDNN", (PaddleEngine.name, replace(options, enable_mkldnn=True)), mkldnn_obstacle(files)),
        (OnnxEngine.name, (OnnxEngine.name, options), _onnx_obstacle(files)),
    ):
        if obstacle is None:
            found[label] = chosen
        else:
            logger.info(f"engine auto: not {label}: {obstacle}")
    return found or paddle_only  # whose start says what to install


def _onnx_obstacle(files: DeployConfig) -> str | None:
    """Why ONNX Runtime is not to be used with this folder; None where the export verified it."""
    if files.onnx is None:
        return "the folder has no ONNX file (export.py --format onnx makes one)"
    if files.verified.get("onnxruntime", {}).get("ok") is not True:
        return "the export did not verify it"
    if _onnxruntime_version() is None:
        return f"it is not installed ({install_hint('onnxruntime')})"
    return None


def choose(files: DeployConfig, options: EngineOptions, make: Callable) -> tuple[str, EngineOptions]:
    """The fastest candidate and its options; says what was measured.

    Args:
        files: the exported folder.
        options: what was asked for.
        make: (engine, files, options) -> an engine with `run`; checks the files first.

    Raises:
        ExportError: an engine's files are missing or damaged, or it fails.
    """
    found = candidates(files, options)
    if len(found) == 1:
        label, chosen = next(iter(found.items()))
        logger.info(f"engine auto: {label}, the only one that is verified for {files.folder} and asked for")
        return chosen
    shape = [
        free if not isinstance(v, int) or v < 1 else v
        for v, free in zip(files.input_shape or _FREE, _FREE, strict=True)
    ]
    key = _key(files, options, shape, list(found))
    seconds, when = _remembered(key, list(found)), "measured earlier on this machine"
    if seconds is None:
        batch = np.random.default_rng(0).standard_normal(shape, np.float32)
        seconds = {label: _time(make(chosen[0], files, chosen[1]), batch) for label, chosen in found.items()}
        when = "measured now"
        _remember(key, seconds)
    best = min(seconds, key=seconds.get)
    listed = ", ".join(f"{label} {seconds[label]:.3f} s" for label in sorted(seconds, key=seconds.get))
    threads = options.cpu_threads or default_threads()
    logger.info(f"engine auto: {best}; a batch {shape} with {threads} threads takes {listed} ({when})")
    return found[best]


def _time(engine, batch: np.ndarray) -> float:
    """Seconds of the faster of two runs, after one that is not timed."""
    return min(seconds_of_runs(lambda: engine.run(batch), warmup=1, repeats=_TIMED_RUNS))


def _onnxruntime_version() -> str | None:
    """None without it. Asked of the module: its packages have several names, for GPUs and other devices."""
    try:
        import onnxruntime
    except ImportError:
        return None
    return onnxruntime.__version__


def _key(files: DeployConfig, options: EngineOptions, shape: list[int], labels: list[str]) -> str | None:
    """What the measurement depends on, as a digest; None for folders that do not say what their files are."""
    if not files.sha256:
        return None
    threads = options.cpu_threads or default_threads()
    versions = [paddle_version(), _onnxruntime_version()]
    content = [files.sha256, shape, labels, threads, available_cores(), processor_name(), platform.node(), versions]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _memory() -> Path:
    """The file of earlier measurements."""
    return writable_cache(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "paddle-dnl") / "engines.json"


def _all_remembered(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remembered(key: str | None, labels: list[str]) -> dict[str, float] | None:
    """An earlier measurement of just these engines; None where there is none or it is damaged."""
    found = _all_remembered(_memory()).get(key) if key else None
    fits = isinstance(found, dict) and list(found) == labels
    return found if fits and all(isinstance(v, float) and v > 0 for v in found.values()) else None


def _remember(key: str | None, seconds: dict[str, float]) -> None:
    """Keeps a measurement for the next start; a home that cannot be written to only costs that."""
    if key is None:
        return
    path = _memory()
    try:
        write_text(path, json.dumps(_all_remembered(path) | {key: seconds}, indent=1), own=True)
    except OSError as error:
        logger.info(f"engine auto: {path} cannot be written ({error.strerror}); the next start measures again")
