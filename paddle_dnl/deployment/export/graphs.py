# SPDX-License-Identifier: Apache-2.0
"""Static graphs of a model: the one that is deployed, the one that gives logits, and the form that is converted to ONNX."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

from paddle_dnl.deployment.runtime.deploy_config import DeployConfig
from paddle_dnl.errors import ExportError, PaddleDnlError
from paddle_dnl.nn.deformable_unfold import DeformableUnfold

import paddle
import paddle.nn.functional as F


class ExportWrapper(paddle.nn.Layer):
    """A model as it is deployed: only the main output, turned into what the user asked for.

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
    """The graph that was asked for, in `work/export`, and the one that gives logits; the same where these were asked for.

    Args:
        model: in evaluation mode.
        output_op, shape: see `export_model`; -1 where the size is free.
        work: a folder for temporary files.

    Returns:
        Two `DeployConfig`.

    Raises:
        ExportError: the model has no static form.
    """
    files = save_graph(model, output_op, shape, work / "export")
    return files, files if output_op == "none" else save_graph(model, "none", shape, work / "logits")


def save_graph(model: paddle.nn.Layer, output_op: str, shape: list, folder: Path) -> DeployConfig:
    """Writes the graph into the new folder; returns the names of the files that came to be.

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
    """Within it the model computes by operators that the ONNX converter knows; yields whether that changes anything.

    DGMN2's samples are taken by `grid_sample` in place of a deformable convolution, of which they are equal up to rounding
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
