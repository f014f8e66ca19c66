# SPDX-License-Identifier: Apache-2.0
"""Static graphs of a model with the deployed output and with logits, and their ONNX files."""

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from paddle_dnl.deployment.runtime.deploy_config import ONNX_NAME, DeployConfig
from paddle_dnl.errors import ExportError, PaddleDnlError, UsageError
from paddle_dnl.nn.deformable_unfold import DeformableUnfold
from paddle_dnl.optional import not_installed

import paddle
import paddle.nn.functional as F

OPSET = 13


class ExportWrapper(paddle.nn.Layer):
    """A model as deployed: only the main output, followed by `output_op`.

    Args:
        model: maps `[B, C, H, W]` to a list of logits.
        output_op: `argmax` gives int32 `[B, H, W]`; `softmax` and `none` give float32 `[B, K, H, W]`.
    """

    def __init__(self, model: paddle.nn.Layer, output_op: str):
        super().__init__()
        self.model = model
        self.output_op = output_op

    def forward(self, x):
        logits = self.model(x)[0]
        if self.output_op == "argmax":
            return paddle.argmax(logits, axis=1, dtype="int32")
        return F.softmax(logits, axis=1) if self.output_op == "softmax" else logits


def save_graphs(model: paddle.nn.Layer, output_op: str, shape: list[int], work: Path):
    """Saves the graph with `output_op` in `work/export`, and one that gives logits, which is the same for `none`.

    Args:
        model: in evaluation mode.
        output_op, shape: see `export_model`; -1 for a free dimension.
        work: a folder for temporary files.

    Returns:
        Two `DeployConfig`.

    Raises:
        ExportError: the model has no static form.
    """
    files = save_graph(model, output_op, shape, work / "export")
    return files, files if output_op == "none" else save_graph(model, "none", shape, work / "logits")


def save_graph(model: paddle.nn.Layer, output_op: str, shape: list, folder: Path) -> DeployConfig:
    """Writes the graph into a new folder; returns the names of its files.

    Raises:
        ExportError: the model has no static form.
    """
    folder.mkdir()
    spec = paddle.static.InputSpec([None if v == -1 else v for v in shape], "float32", name="x")
    wrapper, kind = ExportWrapper(model, output_op), type(model).__name__
    wrapper.eval()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Tensor do not have 'place' interface"
            )  # of Paddle's own grid_sample
            static = paddle.jit.to_static(wrapper, input_spec=[spec], full_graph=True)
            paddle.jit.save(static, str(folder / "model"))
    except (PaddleDnlError, OSError):
        raise
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ExportError(
            f"{kind} cannot be turned into a static graph: {lines[-1].strip() if lines else error!r}"
        ) from error
    graph = next((name for name in ("model.json", "model.pdmodel") if (folder / name).exists()), None)
    if graph is None:
        raise ExportError(f"{folder}: Paddle wrote neither model.json nor model.pdmodel")
    if not (folder / "model.pdiparams").exists():
        raise ExportError(f"{kind} has no weights that its output depends on; there is nothing to export")
    dtype = "int32" if output_op == "argmax" else "float32"
    return DeployConfig(folder, graph, "model.pdiparams", [], shape, output_op, dtype)


@contextlib.contextmanager
def convertible(model: paddle.nn.Layer) -> Iterator[bool]:
    """Context in which the model uses only operators that the ONNX converter supports; yields whether that differs.

    DGMN2 samples by `grid_sample` instead of a deformable convolution; results are equal up to rounding
    (`paddle_dnl.nn.deformable_unfold`).
    """
    layers = [layer for layer in model.sublayers(include_self=True) if isinstance(layer, DeformableUnfold)]
    before = [layer.implementation for layer in layers]
    try:
        for layer in layers:
            layer.implementation = "grid"
        yield any(implementation != "grid" for implementation in before)
    finally:
        for layer, implementation in zip(layers, before, strict=True):
            layer.implementation = implementation


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

    A model with unsupported operators is converted from separate graphs, see `convertible`.

    Args:
        model: in evaluation mode.
        graphs: its saved graphs.
        work: a folder for temporary files.

    Raises:
        ExportError: it cannot be converted.
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

    The converter runs in a child process, since it crashes on some graphs. Its optimiser is off, since the default one
    installs packages at run time.

    Raises:
        ExportError: the graph cannot be converted.
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
    """The line of the converter's output that names the failure, without terminal colours."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", output).splitlines()]
    lines = [line for line in lines if any(sign.isalnum() for sign in line)]
    named = [line for line in lines if "error" in line.lower()]
    return ((named or lines or ["the converter gave no reason"])[-1])[:300]
