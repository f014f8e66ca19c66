# SPDX-License-Identifier: Apache-2.0
"""Measures latency, throughput and memory of an exported model: backends, threads, batch sizes and input sizes."""

import json
import os
import subprocess
from dataclasses import dataclass

from paddle_dnl.deployment.runtime.backends.openvino_backend import has_bf16, openvino_version
from paddle_dnl.deployment.runtime.deploy_config import DeployConfig
from paddle_dnl.deployment.runtime.verified import mkldnn_obstacle
from paddle_dnl.errors import ExportError, UsageError
from paddle_dnl.optional import install_hint
from paddle_dnl.profile.measuring import load_average
from paddle_dnl.startup import child_processes

import numpy as np

# Name on the command line -> backend and options.
BACKENDS = {
    "paddle": {"backend": "paddle", "precision": "fp32", "enable_mkldnn": False},
    "onednn": {"backend": "paddle", "precision": "fp32", "enable_mkldnn": True},
    "onnxruntime": {"backend": "onnxruntime", "precision": "fp32", "enable_mkldnn": False},
    "int8": {"backend": "onnxruntime", "precision": "int8", "enable_mkldnn": False},
    "openvino": {"backend": "openvino", "precision": "fp32", "enable_mkldnn": False},
    "openvino_bf16": {"backend": "openvino", "precision": "bf16", "enable_mkldnn": False},
    "openvino_int8": {"backend": "openvino", "precision": "int8", "enable_mkldnn": False},
}


@dataclass
class Row:
    """One measured setting; times in seconds, memory in bytes.

    Attributes:
        backend: key of `BACKENDS`.
        median, p90: time per batch.
        throughput: images per second.
        peak: peak memory of the process.
        above_base: peak memory minus that of the process before it loaded the model.
        load: load average before the process started; earlier settings contribute for a minute.
    """

    backend: str
    precision: str
    threads: int
    batch: int
    height: int
    width: int
    median: float
    p90: float
    throughput: float
    peak: int
    above_base: int
    load: float | None = None


def obstacle(name: str, files: DeployConfig) -> str | None:
    """Returns why a backend cannot be measured for this folder, or None."""
    if name == "onednn":
        return mkldnn_obstacle(files)
    setting = BACKENDS[name]
    if setting["backend"] != "paddle" and not files.onnx:
        return "no ONNX file; export with --format onnx"
    if setting["precision"] == "int8" and not files.onnx_int8:
        return "no int8 file; make one with tools/quantize.py"
    if setting["backend"] == "openvino" and not openvino_version():
        return f"OpenVINO is not installed; {install_hint('openvino')}"
    if setting["precision"] == "bf16" and not has_bf16():
        return "this processor has no bfloat16 arithmetic (AVX512_BF16 or AMX)"
    return None


def shapes(files: DeployConfig, batches: list[int] | None, sizes: list[tuple[int, int]] | None) -> list[list[int]]:
    """Returns the input shapes to measure; fixed dimensions of the export cannot be changed.

    Raises:
        UsageError: a batch or input size that differs from the fixed one, or no input size where it is free.
    """
    fixed_batch, fixed_size = files.fixed_batch, files.fixed_size
    if fixed_batch and batches and set(batches) != {fixed_batch}:
        raise UsageError(f"--batch_sizes: {files.folder} is exported for a batch of {fixed_batch}; leave the flag out")
    if fixed_size and sizes and set(sizes) != {fixed_size}:
        raise UsageError(f"--sizes: {files.folder} is exported for {fixed_size[1]}x{fixed_size[0]}; leave the flag out")
    if not fixed_size and not sizes:
        raise UsageError("--sizes: this export takes every size; give one, for example --sizes 1024x512")
    channels = files.input_shape[1] if files.input_shape else 3
    return [
        [batch, channels, height, width]
        for height, width in ([fixed_size] if fixed_size else sizes)
        for batch in ([fixed_batch] if fixed_batch else batches or [1])
    ]


def measure(files: DeployConfig, name: str, threads: int, shape: list[int], warmup: int, repeats: int) -> Row:
    """Measures one setting in a new process.

    Raises:
        ExportError: the process failed; the message has its error.
    """
    setting = {**BACKENDS[name], "folder": str(files.folder.resolve()), "threads": threads, "shape": shape}
    setting |= {"warmup": warmup, "repeats": repeats}
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
    command = child_processes.module_command("paddle_dnl.deployment.benchmark.worker", json.dumps(setting))
    load = load_average()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    answer = json.loads(lines[-1]) if lines else {}
    if "seconds" not in answer:
        why = answer.get("error") or (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ExportError(f"{name}, {threads} threads, {shape}: {why}")
    median = float(np.median(answer["seconds"]))
    return Row(
        backend=name,
        precision=setting["precision"],
        threads=threads,
        batch=shape[0],
        height=shape[2],
        width=shape[3],
        median=median,
        p90=float(np.percentile(answer["seconds"], 90)),
        throughput=shape[0] / median,
        peak=answer["peak_bytes"],
        above_base=max(0, answer["peak_bytes"] - answer["base_bytes"]),
        load=load,
    )


def table(rows: list[Row]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| backend | precision | threads | batch | size | median ms | p90 ms | images/s | peak MB | model's MB | load |",
        "|---|---|" + "---:|" * 9,
    ]
    for r in rows:
        lines.append(
            f"| {r.backend} | {r.precision} | {r.threads} | {r.batch} | {r.width}x{r.height} | {1000 * r.median:.1f} "
            f"| {1000 * r.p90:.1f} | {r.throughput:.2f} | {r.peak / 1e6:.0f} | {r.above_base / 1e6:.0f} "
            f"| {'' if r.load is None else f'{r.load:.1f}'} |"
        )
    return "\n".join(lines)
