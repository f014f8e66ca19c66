"""Export to a static graph, and the proof that it computes what the dynamic graph computes."""

import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.data.classes import ClassInfo
from paddle_dnl.engine.deploy_config import OUTPUT_OPS, DeployConfig
from paddle_dnl.engine.inference_engines import EngineOptions, PaddleEngine
from paddle_dnl.errors import ExportError, PaddleDnlError, UsageError
from paddle_dnl.log import logger

import cv2
import numpy as np
import paddle
import paddle.nn.functional as F
from paddleseg.transforms import Compose

# Where free sizes are exported they are checked at one that no stride or pooling grid divides.
_FREE_CHECK_SIZE = (97, 161)


class ExportWrapper(paddle.nn.Layer):
    """A model as it is deployed: only the main output, turned into what the user asked for.

    Args:
        model: maps `[B, 3, H, W]` to a list of logits.
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


@dataclass
class Comparison:
    """What a static graph gave beside the dynamic one."""

    ok: bool
    max_relative_difference: float | None = None
    argmax_disagreement: float | None = None
    error: str | None = None


@dataclass
class ExportReport:
    """Where the export is and how close it is."""

    folder: Path
    comparison: Comparison
    mkldnn: Comparison


def _check_shape(input_shape, model) -> list:
    if input_shape is None:
        if getattr(model, "dynamic_safe", False):
            return [-1, 3, -1, -1]
        raise UsageError(
            f"--input_shape is required for {type(model).__name__}: its graph is unrolled for one size. "
            "For instance --input_shape 1 3 512 1024 (batch, channels, height, width)"
        )
    if len(input_shape) != 4 or any(v == 0 or v < -1 for v in input_shape):
        raise UsageError(f"--input_shape {input_shape}: expected four positive integers, batch channels height width")
    if -1 in input_shape and not getattr(model, "dynamic_safe", False):
        raise UsageError(
            f"--input_shape {input_shape}: {type(model).__name__} needs fixed numbers, for instance 1 3 512 1024"
        )
    if input_shape[1] == -1:
        raise UsageError(f"--input_shape {input_shape}: the number of channels cannot be free")
    return list(input_shape)


def _example(shape: list[int], transforms: list[dict]) -> np.ndarray:
    """A batch like real input: smooth blobs and grain, through the model's own preprocessing."""
    batch, channels, height, width = shape
    rng = np.random.default_rng(0)
    images = []
    for _ in range(batch):
        blobs = rng.uniform(0, 255, (6, 8, channels)).astype(np.float32)
        picture = cv2.resize(blobs, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
        picture = np.clip(picture + rng.normal(0, 12, picture.shape), 0, 255).astype(np.float32)
        steps = [registry.build(step, "transform") for step in transforms]
        image = Compose(steps, img_channels=channels)({"img": picture})["img"]
        if image.shape[1:] != (height, width):
            image = cv2.resize(image.transpose(1, 2, 0), (width, height)).reshape(height, width, channels)
            image = image.transpose(2, 0, 1)
        images.append(image)
    return np.stack(images).astype(np.float32)


def _save_graph(model, output_op: str, shape: list, folder: Path) -> DeployConfig:
    """Writes the graph into `folder`; returns the names of the files that came to be."""
    spec = paddle.static.InputSpec([None if v == -1 else v for v in shape], "float32", name="x")
    wrapper = ExportWrapper(model, output_op)
    wrapper.eval()
    try:
        static = paddle.jit.to_static(wrapper, input_spec=[spec], full_graph=True)
        paddle.jit.save(static, str(folder / "model"))
    except PaddleDnlError:
        raise
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise ExportError(
            f"{type(model).__name__} cannot be turned into a static graph: {lines[-1].strip() if lines else error!r}"
        ) from error
    graph = next((name for name in ("model.json", "model.pdmodel") if (folder / name).exists()), None)
    if graph is None:
        raise ExportError(f"{folder}: Paddle wrote neither model.json nor model.pdmodel")
    dtype = "int32" if output_op == "argmax" else "float32"
    return DeployConfig(folder, graph, "model.pdiparams", [], shape, output_op, dtype)


def compare(reference: np.ndarray, found: np.ndarray, tolerance: float) -> Comparison:
    """Logits `[B, K, H, W]` of two engines.

    Good when the largest difference is within `tolerance` of the largest logit, and the classes differ in at most 0.01 % of
    pixels; a pixel whose two best logits are closer than the tolerance may go either way.
    """
    if reference.shape != found.shape:
        return Comparison(False, error=f"output is {list(found.shape)}, expected {list(reference.shape)}")
    if not np.isfinite(found).all():
        return Comparison(False, error="output holds NaN or infinity")
    scale = float(np.abs(reference).max()) or 1.0
    difference = float(np.abs(reference - found).max()) / scale
    disagree = reference.argmax(1) != found.argmax(1)
    if reference.shape[1] > 1:
        best = np.partition(reference, -2, axis=1)[:, -2:]
        disagree &= (best[:, 1] - best[:, 0]) > tolerance * scale
    share = float(disagree.mean())
    ok = difference <= tolerance and share <= 1e-4
    return Comparison(ok, round(difference, 9), round(share, 9))


def _expected(logits: np.ndarray, output_op: str) -> np.ndarray:
    if output_op == "argmax":
        return logits.argmax(1).astype(np.int32)
    if output_op == "softmax":
        shifted = np.exp(logits - logits.max(1, keepdims=True))
        return shifted / shifted.sum(1, keepdims=True)
    return logits


def _verify(model, files: DeployConfig, batch: np.ndarray, tolerance: float, work: Path) -> ExportReport:
    """Compares logits of the static graph with the dynamic ones, and the asked-for output with those logits."""
    with paddle.no_grad():
        reference = model(paddle.to_tensor(batch))[0].numpy()
    plain = files
    if files.output_op != "none":
        (work / "logits").mkdir()
        plain = _save_graph(model, "none", files.input_shape, work / "logits")
    logits = PaddleEngine(plain, EngineOptions()).run(batch)
    comparison = compare(reference, logits, tolerance)
    if comparison.ok and files.output_op != "none":
        output = PaddleEngine(files, EngineOptions()).run(batch)
        wanted = _expected(logits, files.output_op)
        if output.shape != wanted.shape:
            comparison = Comparison(False, error=f"{files.output_op} gives {list(output.shape)}")
        elif files.output_op == "argmax" and (output != wanted).mean() > 1e-4:
            comparison = Comparison(False, error="argmax in the graph differs from argmax of its logits")
        elif files.output_op == "softmax" and np.abs(output - wanted).max() > tolerance:
            comparison = Comparison(False, error="softmax in the graph differs from softmax of its logits")
    try:
        mkldnn = compare(reference, PaddleEngine(plain, EngineOptions(enable_mkldnn=True)).run(batch), tolerance)
    except ExportError as error:
        mkldnn = Comparison(False, error=str(error))
    return ExportReport(files.folder, comparison, mkldnn)


def _install(work: Path, save_dir: Path) -> None:
    """Puts the finished folder in place; an earlier export stays until the new one is whole."""
    old = None
    if save_dir.exists():
        old = Path(tempfile.mkdtemp(dir=save_dir.parent, prefix=".old_export_"))
        os.replace(save_dir, old / "export")
    os.replace(work, save_dir)
    if old is not None:
        shutil.rmtree(old)


def _require_replaceable(save_dir: Path) -> None:
    """Refuses to replace anything but an earlier export."""
    if save_dir.is_file():
        raise UsageError(f"--save_dir {save_dir}: is a file; give a folder")
    if save_dir.is_dir() and any(save_dir.iterdir()) and not (save_dir / "deploy.yaml").exists():
        raise UsageError(f"--save_dir {save_dir}: holds files that are no export; give an empty or new folder")
    try:
        save_dir.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"--save_dir {save_dir}: a part of this path is a file") from error


def export_model(
    model: paddle.nn.Layer,
    save_dir: str | Path,
    *,
    input_shape: list[int] | None,
    output_op: str = "argmax",
    transforms: list[dict],
    class_info: ClassInfo | None = None,
    tolerance: float = 1e-4,
) -> ExportReport:
    """Writes the graph, its weights and deploy.yaml into `save_dir`, after checking them in Paddle Inference.

    Args:
        model: maps `[B, 3, H, W]` to a list of logits; it is left in the mode it was in.
        save_dir: replaced as a whole when everything is good, else untouched.
        input_shape: [N, C, H, W]; may be None or hold -1 only for models that declare `dynamic_safe`.
        output_op: `argmax`, `softmax` or `none`.
        transforms: preprocessing to store, as in a `val_dataset`.
        class_info: names and colours to store.
        tolerance: largest difference allowed, relative to the largest logit.

    Raises:
        UsageError: an input shape or folder that cannot be used.
        ExportError: the model has no static form, or the static graph disagrees with the dynamic one.
    """
    if output_op not in OUTPUT_OPS:
        raise UsageError(f"--output_op must be one of {', '.join(OUTPUT_OPS)}; got {output_op!r}")
    shape = _check_shape(input_shape, model)
    save_dir = Path(save_dir)
    _require_replaceable(save_dir)
    was_training = model.training
    model.eval()
    work = Path(tempfile.mkdtemp(dir=save_dir.parent, prefix=".export_"))
    try:
        (work / "export").mkdir()
        files = _save_graph(model, output_op, shape, work / "export")
        files.transforms, files.classes = transforms, class_info
        concrete = [1 if shape[0] == -1 else shape[0], shape[1]]
        concrete += [free if v == -1 else v for v, free in zip(shape[2:], _FREE_CHECK_SIZE, strict=True)]
        report = _verify(model, files, _example(concrete, transforms), tolerance, work)
        if not report.comparison.ok:
            found = report.comparison
            detail = found.error or (
                f"logits differ by {found.max_relative_difference:.2e} of their largest (allowed {tolerance:g}), classes in "
                f"{100 * found.argmax_disagreement:.4f} % of pixels (allowed 0.01 %)"
            )
            raise ExportError(
                f"the static graph does not compute what the model computes: {detail}. Nothing was written."
            )
        files.verified = {
            "paddle": asdict(report.comparison) | {"paddle_version": paddle.__version__},
            "mkldnn": asdict(report.mkldnn),
        }
        files.write()
        _install(work / "export", save_dir)
        report.folder = save_dir
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if was_training:
            model.train()
    logger.info(
        f"The inference model is saved in {save_dir}; verified in Paddle Inference: largest difference "
        f"{report.comparison.max_relative_difference:.1e} of the largest logit, classes differ in "
        f"{100 * report.comparison.argmax_disagreement:.4f} % of pixels"
    )
    return report
