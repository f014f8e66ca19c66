# SPDX-License-Identifier: Apache-2.0
"""Verifies the graphs of an export in every backend against the model; handles models that are random in evaluation."""

from pathlib import Path
from typing import TYPE_CHECKING

from paddle_dnl.deployment.export import fp16
from paddle_dnl.deployment.export.check import (
    MAX_DISAGREEMENT,
    ONNX_TOLERANCE,
    Comparison,
    check_output,
    compare,
    worst,
)
from paddle_dnl.deployment.export.graphs import write_beside
from paddle_dnl.deployment.export.randomness import differing_layer
from paddle_dnl.deployment.export.trial import Trial
from paddle_dnl.deployment.runtime.backends.openvino_backend import openvino_version
from paddle_dnl.deployment.runtime.deploy_config import DeployConfig
from paddle_dnl.deployment.runtime.options import BackendOptions
from paddle_dnl.errors import ExportError
from paddle_dnl.log import logger

import numpy as np
import paddle

if TYPE_CHECKING:
    from paddle_dnl.deployment.export.shapes import Reference

# Extra passes of the model to measure the spread of its results.
_PASSES = 3
# Relative noise on the input that simulates different rounding in all layers; float32 rounds by 6e-8.
_ROUNDING = 1e-5


class RandomModelError(ExportError):
    """The model draws random numbers in evaluation."""


def verify(
    model: paddle.nn.Layer,
    files: DeployConfig,
    plain: DeployConfig,
    references: "list[Reference]",
    work: Path,
    tolerance: float,
    allow_random: bool,
    with_onnx: bool,
    with_fp16: bool = False,
) -> dict[str, Comparison]:
    """Compares logits of the static with the dynamic graph, then the output of the graph with `output_op`.

    Graphs run in a child process (`Trial`); a crash in oneDNN or OpenVINO, which are optional, means "not verified" there. If
    the logits of the model change by more than the tolerance when its input changes by rounding, as with max-unpooling in
    SegNet, twice that change is allowed.

    Args:
        model: in evaluation mode.
        files, plain: the graph with `output_op` and the one that gives logits; may be the same.
        references: inputs and logits of the model.
        work: a folder for temporary files.
        tolerance: see `compare`.
        allow_random: allow twice the spread of a model that is random in evaluation.
        with_onnx: also write and compare `model.onnx`.
        with_fp16: also write and compare `model_fp16.onnx`.

    Returns:
        A comparison for `paddle`, `mkldnn` and, by option, `onnxruntime`, `onnxruntime_fp16` and (if installed) `openvino`.

    Raises:
        RandomModelError: the model is random in evaluation without `allow_random`; names the layer.
        ExportError: there is no ONNX form.
    """
    (work / "trial").mkdir()
    graphs = {"logits": plain} if plain is files else {"logits": plain, "asked": files}
    trial = Trial(
        graphs,
        {"paddle": BackendOptions(), "mkldnn": BackendOptions(enable_mkldnn=True)},
        [reference.batch for reference in references],
        work / "trial",
        optional=("mkldnn",),
    )
    limits, spread = (tolerance, MAX_DISAGREEMENT), None
    found = {name: _comparison(trial, name, files.output_op, references, limits) for name in ("paddle", "mkldnn")}
    differs = not found["paddle"].ok and ("paddle", "logits") not in trial.errors
    if differs:
        spread = _spread(model, references[0], tolerance)
    if spread is not None:
        layer = differing_layer(model, references[0].batch)
        text = (
            f"{type(model).__name__} is random in evaluation{f', in {layer}' if layer else ''}: between two passes of one "
            f"picture {spread.describe()}"
        )
        if not allow_random:
            raise RandomModelError(f"{text}; --allow_random exports it, compared within twice of that")
        logger.warning(f"{text}; its graph is compared within twice of that")
        limits = _limits(spread)
    elif differs:
        limits = _limits_of_rounding(model, references[0], tolerance) or limits
    if limits[0] != tolerance:
        found = {name: _comparison(trial, name, files.output_op, references, limits) for name in found}
    if with_onnx and found["paddle"].ok:
        write_beside(model, list(graphs.values()), work)
        backends = {"onnxruntime": BackendOptions()}
        if with_fp16:
            for graph in graphs.values():
                fp16.convert(graph)
            backends["onnxruntime_fp16"] = BackendOptions(precision="fp16")
        if openvino_version():
            backends["openvino"] = BackendOptions()
        (work / "onnx_trial").mkdir()
        batches = [reference.batch for reference in references]
        trial = Trial(graphs, backends, batches, work / "onnx_trial", optional=("openvino",))
        limits = (max(limits[0], ONNX_TOLERANCE), limits[1])
        if spread is None and not _comparison(trial, "onnxruntime", files.output_op, references, limits).ok:
            limits = _limits_of_rounding(model, references[0], limits[0]) or limits
        lower = (max(limits[0], fp16.TOLERANCE), max(limits[1], fp16.DISAGREEMENT))
        allowed = {name: lower if name == "onnxruntime_fp16" else limits for name in backends}
        found |= {name: _comparison(trial, name, files.output_op, references, allowed[name]) for name in backends}
    for comparison in found.values():
        comparison.random_spread = spread and spread.max_relative_difference
    return found


def _comparison(
    trial: Trial, backend: str, output_op: str, references: "list[Reference]", limits: tuple[float, float]
) -> Comparison:
    """The worst comparison over all batches for a backend."""
    failed = next((error for (name, _), error in trial.errors.items() if name == backend), None)
    if failed is not None:
        return Comparison(False, error=f"it cannot be run ({failed})")
    found = []
    for i, reference in enumerate(references):
        logits = trial.output(backend, "logits", i)
        comparison = compare(reference.logits, logits, *limits)
        if comparison.ok and output_op != "none":
            output = trial.output(backend, "asked", i)
            comparison.error = check_output(reference.logits, logits, output, output_op, *limits)
            comparison.ok = comparison.error is None
        found.append(comparison)
    return worst(found)


def _limits(spread: Comparison) -> tuple[float, float]:
    """Allowed difference of logits and share of other classes for a model with this spread."""
    share = spread.argmax_disagreement + spread.near_tie_disagreement
    return 2 * spread.max_relative_difference, MAX_DISAGREEMENT + 2 * share


def _limits_of_rounding(model: paddle.nn.Layer, reference: "Reference", tolerance: float) -> tuple[float, float] | None:
    """The limits for a model that amplifies rounding beyond the tolerance, with a warning; None for other models."""
    spread = _spread(model, reference, tolerance, _ROUNDING)
    if spread is None:
        return None
    logger.warning(
        f"{type(model).__name__} amplifies rounding: where a picture changes by {_ROUNDING:g} of its values, "
        f"{spread.describe()}; its graph is compared within twice of that"
    )
    return _limits(spread)


def _spread(model: paddle.nn.Layer, reference: "Reference", tolerance: float, noise: float = 0.0) -> Comparison | None:
    """Largest differences between passes of the model; None if they are within the tolerance.

    Args:
        noise: relative random change of the input in each pass.
    """
    found, rng = [], np.random.default_rng(0)
    with paddle.no_grad():
        for _ in range(_PASSES):
            batch = reference.batch * (1 + noise * rng.uniform(-1, 1, reference.batch.shape)).astype(np.float32)
            found.append(compare(reference.logits, model(paddle.to_tensor(batch))[0].numpy(), tolerance))
    if all(comparison.ok for comparison in found) or any(comparison.error for comparison in found):
        return None
    for comparison in found:
        comparison.ok = True  # `worst` then gives the largest values
    return worst(found)
