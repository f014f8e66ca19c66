# SPDX-License-Identifier: Apache-2.0
"""Verification of an export: its graphs in every engine against the model; models that are random in evaluation."""

from pathlib import Path

from paddle_dnl.deployment.export import fp16, onnx_export
from paddle_dnl.deployment.export.check import MAX_DISAGREEMENT, Comparison, check_output, compare, worst
from paddle_dnl.deployment.export.randomness import differing_layer
from paddle_dnl.deployment.export.shapes import Reference
from paddle_dnl.deployment.export.trial import Trial
from paddle_dnl.deployment.runtime.deploy_config import DeployConfig
from paddle_dnl.deployment.runtime.openvino_backend import openvino_version
from paddle_dnl.deployment.runtime.options import EngineOptions
from paddle_dnl.errors import ExportError
from paddle_dnl.log import logger

import paddle

# Further passes of a model that is random, for the spread of its results.
_PASSES = 3


class RandomModelError(ExportError):
    """The model draws random numbers in evaluation."""


def verify(
    model: paddle.nn.Layer,
    files: DeployConfig,
    plain: DeployConfig,
    references: list[Reference],
    work: Path,
    tolerance: float,
    allow_random: bool,
    with_onnx: bool,
    with_fp16: bool = False,
) -> dict[str, Comparison]:
    """Compares logits of the static graph with the dynamic ones, then what the asked-for graph makes of them.

    Graphs run in a process of their own (`Trial`): what dies in oneDNN or OpenVINO, which are optional, is not verified there.

    Args:
        model: in evaluation mode.
        files, plain: the asked-for graph and the one that gives logits, or twice the same.
        references: what the model gave.
        work: a folder for temporary files.
        tolerance: see `compare`.
        allow_random: a model that is random in evaluation is compared within twice its own spread.
        with_onnx: also make and compare `model.onnx`.
        with_fp16: and `model_fp16.onnx`.

    Returns:
        A comparison by `paddle`, `mkldnn` and, where asked for, `onnxruntime`, `onnxruntime_fp16` and (where it is installed)
        `openvino`.

    Raises:
        RandomModelError: the model is random in evaluation, and that is not allowed; names the layer.
        ExportError: there is no ONNX form.
    """
    (work / "trial").mkdir()
    graphs = {"logits": plain} if plain is files else {"logits": plain, "asked": files}
    trial = Trial(
        graphs,
        {"paddle": EngineOptions(), "mkldnn": EngineOptions(enable_mkldnn=True)},
        [reference.batch for reference in references],
        work / "trial",
        optional=("mkldnn",),
    )
    limits, spread = (tolerance, MAX_DISAGREEMENT), None
    found = {name: _comparison(trial, name, files.output_op, references, limits) for name in ("paddle", "mkldnn")}
    if not found["paddle"].ok and ("paddle", "logits") not in trial.errors:
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
        share = spread.argmax_disagreement + spread.near_tie_disagreement
        limits = (2 * spread.max_relative_difference, MAX_DISAGREEMENT + 2 * share)
        found = {name: _comparison(trial, name, files.output_op, references, limits) for name in found}
    if with_onnx and found["paddle"].ok:
        onnx_export.write_beside(model, list(graphs.values()), work)
        engines = {"onnxruntime": EngineOptions()}
        if with_fp16:
            for graph in graphs.values():
                fp16.convert(graph)
            engines["onnxruntime_fp16"] = EngineOptions(precision="fp16")
        if openvino_version():
            engines["openvino"] = EngineOptions()
        (work / "onnx_trial").mkdir()
        batches = [reference.batch for reference in references]
        trial = Trial(graphs, engines, batches, work / "onnx_trial", optional=("openvino",))
        limits = (max(limits[0], onnx_export.TOLERANCE), limits[1])
        lower = (max(limits[0], fp16.TOLERANCE), max(limits[1], fp16.DISAGREEMENT))
        allowed = {name: lower if name == "onnxruntime_fp16" else limits for name in engines}
        found |= {name: _comparison(trial, name, files.output_op, references, allowed[name]) for name in engines}
    for comparison in found.values():
        comparison.random_spread = spread and spread.max_relative_difference
    return found


def _comparison(
    trial: Trial, engine: str, output_op: str, references: list[Reference], limits: tuple[float, float]
) -> Comparison:
    """The worst of all batches with an engine."""
    failed = next((error for (name, _), error in trial.errors.items() if name == engine), None)
    if failed is not None:
        return Comparison(False, error=f"it cannot be run ({failed})")
    found = []
    for i, reference in enumerate(references):
        logits = trial.output(engine, "logits", i)
        comparison = compare(reference.logits, logits, *limits)
        if comparison.ok and output_op != "none":
            output = trial.output(engine, "asked", i)
            comparison.error = check_output(reference.logits, logits, output, output_op, *limits)
            comparison.ok = comparison.error is None
        found.append(comparison)
    return worst(found)


def _spread(model: paddle.nn.Layer, reference: Reference, tolerance: float) -> Comparison | None:
    """The largest differences between passes of the model itself; None where they are as good as equal."""
    found = []
    with paddle.no_grad():
        for _ in range(_PASSES):
            found.append(compare(reference.logits, model(paddle.to_tensor(reference.batch))[0].numpy(), tolerance))
    if all(comparison.ok for comparison in found) or any(comparison.error for comparison in found):
        return None
    for comparison in found:
        comparison.ok = True  # `worst` then gives the largest values
    return worst(found)
