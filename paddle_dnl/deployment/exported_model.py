# SPDX-License-Identifier: Apache-2.0
"""`ExportedModel`: an exported folder with the interface of a model, so that `evaluate` can score it."""

from pathlib import Path

from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import DataError, UsageError

import numpy as np
import paddle


class ExportedModel(paddle.nn.Layer):
    """Maps `[B, C, H, W]` to a list of one output, like a network, computed by a deployment backend.

    The output of the graph (`output_op` of deploy.yaml) decides which evaluations are possible:

    * `none`: logits, as from the checkpoint.
    * `softmax`: the logarithm of the probabilities replaces the logits. It differs from them by a constant per pixel, so
      that classes are equal if nothing is resized or averaged before the argmax.
    * `argmax`: `gives_classes` is true, and only `predict_classes` works.

    Args:
        folder: an exported folder or its deploy.yaml.
        backend: `paddle`, `onnxruntime`, `openvino` or `auto`.
        options: fields of `paddle_dnl.deployment.runtime.options.BackendOptions`, such as `precision`.

    Raises:
        ConfigError, ExportError, UsageError: as `Predictor` raises them.
    """

    def __init__(self, folder: str | Path, backend: str = "paddle", **options):
        super().__init__()
        # No tiles or resizing: an evaluation passes windows or pictures of the right size.
        self.predictor = Predictor(folder, backend=backend, tile="never", **options)
        self.files = self.predictor.files
        self.gives_classes = self.files.output_op == "argmax"

    def require_dataset(self, dataset) -> None:
        """Refuses a dataset with another number of classes or bands than the export.

        Raises:
            UsageError: names both numbers.
        """
        bands = getattr(dataset, "img_channels", 3)
        if bands != self.files.img_channels:
            raise UsageError(
                f"{self.files.folder}: takes pictures of {self.files.img_channels} channels, the dataset's have {bands}"
            )
        if self.files.classes and len(self.files.classes.names) != dataset.num_classes:
            raise UsageError(
                f"{self.files.folder}: has {len(self.files.classes.names)} classes, the dataset {dataset.num_classes}"
            )

    def require_settings(self, settings: dict) -> None:
        """Refuses an evaluation that is impossible with this export, before pictures are read.

        Args:
            settings: arguments of `evaluate`, and `save_prob`.

        Raises:
            UsageError: names the flag and what to do.
        """
        place = self.files.folder
        if settings.get("use_multilabel"):
            raise UsageError(f"--use_multilabel: {place} has one class per pixel")
        if self.gives_classes:
            for name in ("is_slide", "aug_eval", "auc_roc", "save_prob"):
                if settings.get(name):
                    raise UsageError(
                        f"--{name} needs logits, and {place} gives classes; export the model with --output_op none"
                    )
        size, window = self.files.fixed_size, settings.get("crop_size")
        if size and settings.get("is_slide") and tuple(window) != size[::-1]:
            raise UsageError(
                f"--crop_size {window[0]} {window[1]}: {place} takes {size[1]}x{size[0]} only; give --crop_size {size[1]} "
                f"{size[0]}, or export the model with --input_shape 1 {self.files.img_channels} {window[1]} {window[0]}"
            )

    def forward(self, x):
        """Logits `[B, K, H, W]`, or log-probabilities, as the only item of a list.

        Raises:
            DataError: pictures or windows of another size than a fixed-size export takes.
            ExportError: the backend failed.
        """
        output = self._run(x.numpy())
        if self.files.output_op == "softmax":
            output = np.log(np.maximum(output, np.finfo(np.float32).tiny))
        return [paddle.to_tensor(output)]

    def predict_classes(self, images: np.ndarray, trans_info: list) -> np.ndarray:
        """Classes `[B, h, w]` of `[B, C, H, W]`, at the size before the transforms in `trans_info`.

        Raises:
            DataError, ExportError: as `forward`.
        """
        output = self._run(images)
        return np.stack([self.predictor.postprocess(one, list(trans_info)) for one in output])

    def _run(self, images: np.ndarray) -> np.ndarray:
        size, (height, width) = self.files.fixed_size, images.shape[2:]
        if size is not None and (height, width) != size:
            raise DataError(
                f"{self.files.folder}: takes {size[1]}x{size[0]} only, and this evaluation gives it {width}x{height}; "
                f"use windows, --is_slide --crop_size {size[1]} {size[0]} --stride ..., or export the model with "
                f"--input_shape 1 {images.shape[1]} {height} {width}"
            )
        return self.predictor.run(np.ascontiguousarray(images, np.float32))
