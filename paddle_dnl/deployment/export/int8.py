# SPDX-License-Identifier: Apache-2.0
"""Post-training static quantisation of an exported ONNX graph, for ONNX Runtime and OpenVINO on CPU.

Weights (per output channel) and activations of convolutions and products with constant matrices become 8 bits; activation
ranges are the minimum and maximum on calibration images. These stay in float, since they are most sensitive to rounding:

* attention logits and positions of samples (`onnx_nodes.sensitive_nodes`);
* products of two computed matrices (the attention itself);
* the classifier and all after it.
"""

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_dnl.deployment.export.onnx_nodes import (
    LEARNED_OPS,
    back_to_weights,
    constants_of,
    has_weights,
    sensitive_nodes,
)
from paddle_dnl.deployment.runtime.deploy_config import DeployConfig
from paddle_dnl.errors import ExportError, UsageError
from paddle_dnl.optional import not_installed
from paddle_dnl.profile.measuring import seconds_of_runs

import numpy as np

if TYPE_CHECKING:
    from paddle_dnl.deployment.export.image_check import ScoredImages

# The others compute directly on 8-bit values.
_QUANTISED_OPS = ("Conv", "MatMul", "Gemm", "Add", "Relu", "MaxPool", "AveragePool", "Concat")


def float_nodes(model) -> set[str]:
    """Names of the nodes of an ONNX model that stay in float."""
    constants = constants_of(model)
    found = back_to_weights(model, [output.name for output in model.graph.output]) | sensitive_nodes(model)
    products = (node for node in model.graph.node if node.op_type in LEARNED_OPS)
    return found | {node.name for node in products if not has_weights(node, constants)}


def require_quantiser() -> None:
    """Raises UsageError if onnx or ONNX Runtime is not installed."""
    try:
        import onnx  # noqa: F401
        from onnxruntime import quantization  # noqa: F401
    except ImportError as error:
        raise not_installed("int8", error, "onnx") from error


def _calibration(images: list, preprocess: Callable, input_name: str):
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        """Yields one preprocessed image at a time."""

        def __init__(self):
            self._left = iter(images)

        def get_next(self):
            """The next input, None at the end."""
            image = next(self._left, None)
            return None if image is None else {input_name: preprocess(image)[0][None]}

    return Reader()


def quantize(files: DeployConfig, images: list, preprocess: Callable, target: Path) -> None:
    """Writes the 8-bit version of the folder's ONNX graph.

    Args:
        files: an exported folder with ONNX.
        images: calibration pictures, at least one.
        preprocess: picture -> (network input `[C, H, W]`, sizes), for instance `Predictor.preprocess`.
        target: file to write.

    Raises:
        UsageError: no images, or the quantiser is not installed.
        ExportError: no ONNX file, a damaged one, or a fixed batch size above 1.
    """
    require_quantiser()
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if not images:
        raise UsageError("int8: no calibration images")
    if not files.onnx:
        raise ExportError(f"{files.folder}: has no ONNX file; export the model with --format onnx")
    if (files.fixed_batch or 1) != 1:
        raise ExportError(
            f"{files.folder}: is exported for a batch of {files.fixed_batch}; int8 needs 1 (or a free one)"
        )
    files.check_files(files.onnx)
    root = logging.getLogger()
    level = root.level
    try:
        # Its log lines are advice that is followed here already.
        root.setLevel(logging.ERROR)
        onnxruntime.set_default_logger_severity(3)
        with tempfile.TemporaryDirectory(dir=target.parent) as work:
            plain = Path(work) / "plain.onnx"
            quant_pre_process(str(files.folder / files.onnx), str(plain), skip_symbolic_shape=True)
            model = onnx.load(str(plain))
            quantize_static(
                str(plain),
                str(target),
                _calibration(images, preprocess, model.graph.input[0].name),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_QUANTISED_OPS),
                nodes_to_exclude=sorted(float_nodes(model)),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    finally:
        root.setLevel(level)


@dataclass
class Int8Report:
    """Comparison of the quantised with the float model on the same images.

    Attributes:
        images: number of compared images, other than those for calibration if there are others.
        calibration_images: number of images for calibration.
        agreement: share of pixels with the same class.
        miou_float, miou_int8: mIoU; None without labels.
        seconds_float, seconds_int8: median time of a batch of 1 in ONNX Runtime.
        threads: compute threads of both.
    """

    images: int
    calibration_images: int
    agreement: float
    miou_float: float | None
    miou_int8: float | None
    seconds_float: float
    seconds_int8: float
    threads: int

    def table(self) -> str:
        """The report as text."""
        score = "{:.4f}".format
        rows = [("", "float32", "int8"), ("same class", "", f"{100 * self.agreement:.3f} %")]
        if self.miou_float is not None:
            rows.append(("mIoU", score(self.miou_float), score(self.miou_int8)))
        rows.append(("seconds", score(self.seconds_float), score(self.seconds_int8)))
        lines = ["".join(f"{cell:>12}" for cell in row) for row in rows]
        factor = self.seconds_float / self.seconds_int8
        word = (
            f"{factor:.2f} times as fast"
            if factor >= 1
            else f"slower ({factor:.2f} of the float speed): keep float here"
        )
        return "\n".join([*lines, f"int8 is {word}, with {self.threads} threads on this machine"])


def compare(images: "ScoredImages", plain, small, calibration_images: int, threads: int) -> Int8Report:
    """Runs the model in float and in int8 on the same images.

    Args:
        images: with `plain` as reference.
        plain: `Predictor` of the float model.
        small: `Predictor` of the int8 model.
        calibration_images, threads: for the report.
    """
    score = images.score(small)
    batch = plain.preprocess(images.pairs[0][0])[0][None]
    seconds = [
        float(np.median(seconds_of_runs(partial(predictor.run, batch), warmup=1, repeats=7)))
        for predictor in (plain, small)
    ]
    return Int8Report(score.images, calibration_images, score.agreement, images.miou, score.miou, *seconds, threads)
