# SPDX-License-Identifier: Apache-2.0
"""Scores of each image of a dataset, predicted by a model or read from stored label pictures."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from paddle_dnl.data.images.image_files import walk_files
from paddle_dnl.data.images.reading import read_label
from paddle_dnl.errors import DataError
from paddle_dnl.evaluation.inference import infer_scores
from paddle_dnl.evaluation.metrics import Metrics, confusion_matrix
from paddle_dnl.evaluation.options import InferenceOptions
from paddle_dnl.log import progress

import numpy as np
import paddle


@dataclass
class ImageScore:
    """Index into the dataset, and mIoU over the classes that occur in label or prediction."""

    index: int
    miou: float


class StoredLabels:
    """Predictions `[H, W]` by index into a dataset, read from a folder of label pictures with the images' names.

    Raises:
        DataError: no pictures, two of one name, or none for an image.
    """

    def __init__(self, folder: str | Path, dataset):
        found: dict[str, Path] = {}
        for path in walk_files(folder, (".png",)):
            if "added_prediction" in path.parts:  # overlays of the same names
                continue
            if path.stem in found:
                raise DataError(f"{folder}: {path.stem}.png occurs twice; give the folder of one inference run")
            found[path.stem] = path
        if not found:
            raise DataError(f"--prediction_dir {folder}: no .png files there")
        missing = [image for image, _ in dataset.file_list if Path(image).stem not in found]
        if missing:
            raise DataError(f"{missing[0]}: --prediction_dir {folder} holds no {Path(missing[0]).stem}.png")
        self._paths = [found[Path(image).stem] for image, _ in dataset.file_list]

    def __call__(self, index: int) -> np.ndarray:
        return read_label(self._paths[index])


class ModelLabels:
    """Predictions `[H, W]` by index into a dataset, computed by a model at one scale.

    Args:
        model: maps `[1, 3, h, w]` to a list of logits; put into evaluation mode.
        dataset: in mode `val`.
        options: only windows and `align_corners` are used.
    """

    def __init__(self, model: paddle.nn.Layer, dataset, options: InferenceOptions):
        model.eval()
        self._model, self._dataset, self._options = model, dataset, replace(options, aug_eval=False)

    def __call__(self, index: int) -> np.ndarray:
        sample = self._dataset[index]
        image = paddle.to_tensor(sample["img"][None])
        scores = infer_scores(self._model, image, sample["trans_info"], self._options)
        return paddle.argmax(scores, axis=1, dtype="int32").numpy()[0]


def true_label(dataset, index: int) -> np.ndarray:
    """The label `[H, W]` of one image in training class numbers, at its stored size."""
    return dataset.read_label(dataset.file_list[index][1])


def score_images(dataset, predicted: Callable[[int], np.ndarray]) -> tuple[np.ndarray, list[ImageScore]]:
    """Confusion matrix of all images `[K, K]`, and the scores of single images, best first.

    Images without a labelled pixel have no score and are left out. One image is in memory at a time.

    Raises:
        DataError: an image without a label, or a prediction of another size.
    """
    total = np.zeros((dataset.num_classes, dataset.num_classes), np.int64)
    scores = []
    for index, (image, label_path) in enumerate(progress(dataset.file_list, "score", len(dataset.file_list))):
        if label_path is None:
            raise DataError(f"{image}: has no label")
        label, prediction = true_label(dataset, index), predicted(index)
        if prediction.shape != label.shape:
            raise DataError(
                f"{image}: its prediction is {prediction.shape[::-1]} pixels, its label {label.shape[::-1]}"
            )
        matrix = confusion_matrix(prediction, label, dataset.num_classes, dataset.ignore_index)
        total += matrix
        if matrix.any():
            scores.append(ImageScore(index, Metrics.from_confusion(matrix).miou))
    return total, sorted(scores, key=lambda score: -score.miou)
