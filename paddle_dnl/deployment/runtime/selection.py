# SPDX-License-Identifier: Apache-2.0
"""Creates a backend by name after checking its files; `auto` is the fastest verified one on this machine.

`auto` measures once per folder and machine and caches the result.
"""

import hashlib
import json
import platform
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from paddle_dnl.deployment.runtime.backends import winograd_graph
from paddle_dnl.deployment.runtime.backends.onnx_backend import OnnxBackend
from paddle_dnl.deployment.runtime.backends.openvino_backend import OpenvinoBackend, has_bf16, openvino_version
from paddle_dnl.deployment.runtime.backends.paddle_backend import PaddleBackend
from paddle_dnl.deployment.runtime.deploy_config import DeployConfig
from paddle_dnl.deployment.runtime.options import BackendOptions, default_threads
from paddle_dnl.deployment.runtime.verified import mkldnn_obstacle, paddle_version
from paddle_dnl.errors import UsageError
from paddle_dnl.files.atomic import write_text
from paddle_dnl.files.caches import package_cache
from paddle_dnl.files.reading import parse_json, read_bytes
from paddle_dnl.log import logger
from paddle_dnl.optional import install_hint
from paddle_dnl.profile.measuring import load_average, processor_name, seconds_of_runs
from paddle_dnl.startup.threads import available_cores

import numpy as np

BACKENDS = (PaddleBackend.name, OnnxBackend.name, OpenvinoBackend.name, "auto")

# Input shape of the measurement for free axes.
_FREE = (1, 3, 256, 512)
_TIMED_RUNS = 2
# Minimum share of pixels with the model's class for a lower precision to be used by `--precision fastest`.
MIN_AGREEMENT = 0.995


def _make(name: str, files: DeployConfig, options: BackendOptions):
    """Creates the backend `name` after checking its files."""
    if name == PaddleBackend.name:
        if options.streams:
            raise UsageError("only the backend openvino has streams, the backend paddle has none")
        if options.device == "cpu":
            if options.precision == "int8":
                raise UsageError("int8 on a CPU needs the backend onnxruntime or openvino; use one of them, or auto")
            if options.precision != "fp32":
                raise UsageError(
                    f"{options.precision} on a CPU needs the backend openvino; use --backend openvino or auto"
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
        raise UsageError(f"only the backend openvino has streams, the backend {name} has none")
    file = files.onnx_of(options.precision)
    if file:
        files.check_files(file)
    return kinds[name](files, options)


def resolve_backend(name: str, files: DeployConfig, options: BackendOptions) -> tuple[str, BackendOptions]:
    """Resolves `auto`, and the precision `fastest`, to the fastest verified backend on this machine.

    Returns:
        Backend and options; other names and precisions are returned unchanged.
    """
    if name != "auto" and options.precision != "fastest":
        return name, options
    return choose(files, options, None if name == "auto" else name)


def make_backend(name: str, files: DeployConfig, options: BackendOptions):
    """Creates the backend `paddle`, `onnxruntime` or `openvino`; `auto`: the fastest verified one on this machine.

    Raises:
        UsageError: unknown name, a device or precision that the backend does not support, or oneDNN for a folder whose
            export did not verify it.
        ExportError: files that are missing, damaged or cannot be loaded.
    """
    name, options = resolve_backend(name, files, options)
    backend = _make(name, files, options)
    extras = [options.precision] * (options.precision != "fp32") + ["oneDNN"] * options.enable_mkldnn
    logger.info(" ".join([f"backend {name} on {options.device}", *extras]))
    return backend


def candidates(
    files: DeployConfig, options: BackendOptions, only: str | None = None
) -> dict[str, tuple[str, BackendOptions]]:
    """Returns the backends that can run this folder with these options: label for the log -> (backend, options).

    Args:
        files: the exported folder.
        options: with the precision `fp32`, `bf16` or `int8` only that precision is considered; with `fastest` float32
            and the precisions that were verified with images.
        only: consider only this backend; None: all.

    Raises:
        UsageError: nothing is verified for the backend `only`.
    """
    plain = replace(options, precision="fp32" if options.precision == "fastest" else options.precision)
    paddle_only = {PaddleBackend.name: (PaddleBackend.name, plain)}
    if options.device == "gpu":
        return _on_gpu(files, options, plain, only)
    if options.device != "cpu" or options.enable_mkldnn:
        return paddle_only
    if options.precision == "bf16":
        return {"openvino bf16": (OpenvinoBackend.name, options)}
    if options.precision == "int8":
        # If ONNX Runtime is missing, its start raises an error with the installation hint.
        kinds = (OnnxBackend, OpenvinoBackend) if openvino_version() else (OnnxBackend,)
        found = {f"{kind.name} int8": (kind.name, options) for kind in kinds}
    else:
        found = {}
        for label, backend, chosen, obstacle in (
            (PaddleBackend.name, PaddleBackend.name, plain, None if paddle_version() else "Paddle is not installed"),
            (
                "paddle with oneDNN",
                PaddleBackend.name,
                replace(plain, enable_mkldnn=True),
                mkldnn_obstacle(files),
            ),
            (OnnxBackend.name, OnnxBackend.name, plain, onnx_obstacle(OnnxBackend.name, files)),
            (OpenvinoBackend.name, OpenvinoBackend.name, plain, onnx_obstacle(OpenvinoBackend.name, files)),
        ):
            if obstacle is None:
                found[label] = (backend, chosen)
            elif only in (None, backend):
                logger.info(f"backend auto: skipping {label}: {obstacle}")
    if options.precision == "fastest":
        for backend, precision in verified_precisions(files):
            if precision != "fp16":  # no faster on CPUs
                found[f"{backend} {precision}"] = (backend, replace(options, precision=precision))
    found = {label: chosen for label, chosen in found.items() if only in (None, chosen[0])}
    if only and not found:
        raise UsageError(f"--precision {options.precision}: {files.folder} has no verified model for {only}")
    return found or paddle_only  # Paddle's start raises an error with the installation hint


def _on_gpu(
    files: DeployConfig, options: BackendOptions, plain: BackendOptions, only: str | None
) -> dict[str, tuple[str, BackendOptions]]:
    """Like `candidates` for GPUs: Paddle Inference, and ONNX Runtime if it is built for GPUs. Not tested on a GPU.

    Args:
        plain: `options` with fp32 in place of `fastest`.
    """
    found = {}
    if options.precision in ("fp32", "fastest") or options.use_trt:
        found[PaddleBackend.name] = (PaddleBackend.name, plain)
    onnxruntime = _onnxruntime()
    if onnxruntime and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        if options.precision in ("fp32", "fastest") and onnx_obstacle(OnnxBackend.name, files) is None:
            found[OnnxBackend.name] = (OnnxBackend.name, plain)
        is_wanted = options.precision == "fp16" or (
            options.precision == "fastest" and (OnnxBackend.name, "fp16") in verified_precisions(files)
        )
        if files.onnx_fp16 and is_wanted:
            found[f"{OnnxBackend.name} fp16"] = (OnnxBackend.name, replace(options, precision="fp16"))
    found = {label: chosen for label, chosen in found.items() if only in (None, chosen[0])}
    name = only or PaddleBackend.name
    return found or {name: (name, plain)}  # the backend's start raises an error with the reason


def onnx_obstacle(backend: str, files: DeployConfig) -> str | None:
    """Returns why a backend that reads ONNX must not be used with this folder; None if the export verified it."""
    if files.onnx is None:
        return "the folder has no ONNX file (export.py --format onnx makes one)"
    if files.verified.get(backend, {}).get("ok") is not True:
        return "the export did not verify it"
    found = openvino_version() if backend == OpenvinoBackend.name else _onnxruntime()
    return None if found else f"it is not installed ({install_hint(backend)})"


def verified_precisions(files: DeployConfig) -> list[tuple[str, str]]:
    """Returns (backend, precision) other than fp32 that agreed with the model on enough pixels and can run here."""
    installed = {OnnxBackend.name: _onnxruntime(), OpenvinoBackend.name: openvino_version()}
    found = []
    for label, record in files.verified.get("precisions", {}).items():
        backend, _, precision = str(label).partition(" ")
        if precision == "fp32":
            continue
        agreement = record.get("agreement") if isinstance(record, dict) else None
        if not isinstance(agreement, float) or agreement < MIN_AGREEMENT:
            logger.info(
                f"backend auto: skipping {label}: agreement {agreement} with the model is below {MIN_AGREEMENT}"
            )
        elif installed.get(backend) is None:
            logger.info(f"backend auto: skipping {label}: {backend} is not installed")
        elif precision == "bf16" and not has_bf16():
            logger.info(f"backend auto: skipping {label}: this processor has no bfloat16 arithmetic")
        else:
            found.append((backend, precision))
    return found


def choose(files: DeployConfig, options: BackendOptions, only: str | None = None) -> tuple[str, BackendOptions]:
    """Returns the fastest candidate and its options; logs the measurements.

    Args:
        files: the exported folder.
        options: options of the user.
        only: see `candidates`.

    Raises:
        ExportError: a backend's files are missing or damaged, or the backend fails.
        UsageError: see `candidates`.
    """
    found = candidates(files, options, only)
    if len(found) == 1:
        label, chosen = next(iter(found.items()))
        logger.info(f"backend auto: {label}, the only verified candidate for {files.folder}")
        return chosen
    shape = [
        free if not isinstance(v, int) or v < 1 else v
        for v, free in zip(files.input_shape or _FREE, _FREE, strict=True)
    ]
    key = _key(files, options, shape, list(found))
    seconds, when = _remembered(key, list(found)), "cached measurement of this machine"
    if seconds is None:
        batch = np.random.default_rng(0).standard_normal(shape, np.float32)
        # Read before the measurement, which itself increases the load.
        load = load_average()
        seconds = {label: _time(_make(chosen[0], files, chosen[1]), batch) for label, chosen in found.items()}
        when = "measured now" + (
            f", at a load of {load:.1f}: will be repeated at a lower load" if _loaded(load) else ""
        )
        _remember(key, seconds, load)
    best = min(seconds, key=seconds.get)
    listed = ", ".join(f"{label} {seconds[label]:.3f} s" for label in sorted(seconds, key=seconds.get))
    threads = options.cpu_threads or default_threads()
    logger.info(f"backend auto: {best}; a batch {shape} with {threads} threads takes {listed} ({when})")
    return found[best]


def _time(backend, batch: np.ndarray) -> float:
    """Seconds of the faster of two runs after a warm-up run."""
    return min(seconds_of_runs(lambda: backend.run(batch), warmup=1, repeats=_TIMED_RUNS))


def _onnxruntime() -> ModuleType | None:
    """Imports ONNX Runtime; None if it is not installed. Finds all distributions, whose module has one name."""
    try:
        import onnxruntime
    except ImportError:
        return None
    return onnxruntime


def _key(files: DeployConfig, options: BackendOptions, shape: list[int], labels: list[str]) -> str | None:
    """Digest of everything that a measurement depends on; None for folders without file digests."""
    if not files.sha256:
        return None
    threads = options.cpu_threads or default_threads()
    versions = [paddle_version(), getattr(_onnxruntime(), "__version__", None), openvino_version()]
    content = [
        files.sha256,
        options.device,
        shape,
        labels,
        threads,
        available_cores(),
        processor_name(),
        platform.node(),
        versions,
        winograd_graph.version(),
    ]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _memory() -> Path:
    """Path of the cached measurements."""
    return package_cache() / "backends.json"


def _all_remembered(path: Path) -> dict:
    try:
        found = parse_json(read_bytes(path))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _loaded(load: float | None) -> bool:
    """Whether the load average is at least half of the number of cores."""
    return load is not None and load >= available_cores() / 2


def _remembered(key: str | None, labels: list[str]) -> dict[str, float] | None:
    """Returns the cached seconds per label; None if there are none, or the load has halved since."""
    record = _all_remembered(_memory()).get(key) if key else None
    found, load = (record.get("seconds"), record.get("load")) if isinstance(record, dict) else (None, None)
    if not isinstance(found, dict) or list(found) != labels or not isinstance(load, float | int | None):
        return None
    if _loaded(load) and (now := load_average()) is not None and now < load / 2:
        return None
    return found if all(isinstance(v, float) and v > 0 for v in found.values()) else None


def _remember(key: str | None, seconds: dict[str, float], load: float | None) -> None:
    """Caches a measurement for later starts, if the cache folder is writable."""
    if key is None:
        return
    path = _memory()
    try:
        write_text(
            path, json.dumps(_all_remembered(path) | {key: {"seconds": seconds, "load": load}}, indent=1), own=True
        )
    except OSError as error:
        logger.info(f"backend auto: {path} cannot be written ({error.strerror}); the next start measures again")
