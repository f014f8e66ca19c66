# SPDX-License-Identifier: Apache-2.0
"""ONNX file of an exported graph, verified against the dynamic model."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from paddle_dnl.deployment.export.graphs import convertible, save_graph
from paddle_dnl.deployment.runtime.deploy_config import ONNX_NAME, DeployConfig
from paddle_dnl.errors import ExportError, UsageError
from paddle_dnl.optional import not_installed

import paddle

OPSET = 13

# ONNX Runtime fuses and reorders sums; DNLNet's temperature of 0.05 amplifies rounding errors twenty times.
TOLERANCE = 2e-3


def require_converter() -> None:
    """Raises UsageError when paddle2onnx or onnxruntime is not installed."""
    for name in ("paddle2onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            if name == "paddle2onnx" and sys.version_info >= (3, 13):
                raise UsageError(
                    "--format onnx: paddle2onnx has no build for Python 3.13; export with Python 3.10 to 3.12 "
                    "(the ONNX file runs on 3.13)"
                )
            raise not_installed("--format onnx (with Paddle 3)", ImportError(name=name), "onnx")


def write_beside(model: paddle.nn.Layer, graphs: list[DeployConfig], work: Path) -> None:
    """Writes `model.onnx` beside each graph of a model.

    Where the model has operators that the converter does not know, it is converted from graphs of their own.

    Args:
        model: in evaluation mode.
        graphs: what was saved of it.
        work: a folder for temporary files.

    Raises:
        ExportError: there is no ONNX form.
    """
    with convertible(model) as changed:
        for i, files in enumerate(graphs):
            if not changed:
                convert(files)
                continue
            source = save_graph(model, files.output_op, files.input_shape, work / f"convertible{i}")
            convert(source)
            (source.folder / ONNX_NAME).rename(files.folder / ONNX_NAME)
            files.onnx = ONNX_NAME


def convert(files: DeployConfig) -> Path:
    """Writes `model.onnx` beside a graph.

    The converter runs in a process of its own: on some graphs it ends the process. Its optimiser is switched off, since
    the default one installs packages when it runs.

    Raises:
        ExportError: the graph has no ONNX form.
    """
    target = files.folder / ONNX_NAME
    program = (
        "import sys, paddle2onnx; paddle2onnx.export(sys.argv[1], sys.argv[2], sys.argv[3], "
        f"opset_version={OPSET}, optimize_tool=None)"
    )
    command = [sys.executable, "-c", program, str(files.model_path), str(files.params_path), str(target)]
    environment = dict(os.environ, PIP_NO_INDEX="1")
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode or not target.is_file():
        raise ExportError(f"{files.model_path}: cannot be converted to ONNX: {_reason(done.stderr + done.stdout)}")
    files.onnx = ONNX_NAME
    return target


def _reason(output: str) -> str:
    """The line of the converter's output that says what failed, without its colours."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", output).splitlines()]
    lines = [line for line in lines if any(sign.isalnum() for sign in line)]
    named = [line for line in lines if "error" in line.lower()]
    return ((named or lines or ["the converter gave no reason"])[-1])[:300]
