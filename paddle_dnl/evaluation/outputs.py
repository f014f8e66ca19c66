# SPDX-License-Identifier: Apache-2.0
"""Output files of val.py: scores as JSON and CSV, predictions, probabilities, a Cityscapes submission."""

import io
import json
import math
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from paddle_dnl.data.classes import classes_of
from paddle_dnl.data.file_list import files_of
from paddle_dnl.data.overlay import encode_label_png
from paddle_dnl.data.probability_files import probability_file
from paddle_dnl.distributed import collectives
from paddle_dnl.errors import DataError, UsageError
from paddle_dnl.evaluation import class_table
from paddle_dnl.evaluation.boundary import BoundaryCounts
from paddle_dnl.evaluation.calibration import CalibrationCounts
from paddle_dnl.evaluation.metrics import Areas, Metrics, confusion_matrix
from paddle_dnl.files.atomic import new_file, write_bytes, write_text
from paddle_dnl.files.outputs import check_outputs, require_folder
from paddle_dnl.log import logger

import numpy as np
import paddle.nn.functional as F
from PIL import Image

# labelId of each of the 19 training classes, from cityscapesscripts' helpers/labels.py.
CITYSCAPES_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

# Files that every evaluation writes.
SCORE_FILES = ("scores.json", "classes.csv", "images.csv")


@dataclass(frozen=True)
class OutputOptions:
    """Files to write.

    Attributes:
        save_dir: folder of all files.
        save_pred: `pred/NAME.png`, class numbers with a palette.
        save_prob: `prob/NAME.npz`; `float16`, `uint8` (probability * 255, rounded) or None.
        cityscapes_submission: `cityscapes_submission.zip` with labelIds for the test server.
    """

    save_dir: Path
    save_pred: bool = False
    save_prob: str | None = None
    cityscapes_submission: bool = False


def require_no_input(dataset, save_dir: Path, files: Iterable[str]) -> None:
    """Makes `save_dir` after checking that no output file in it is an input of the evaluation, such as a label picture.

    Args:
        dataset: the evaluated dataset.
        save_dir: folder of all files.
        files: names of all files, relative to it.

    Raises:
        OutputError: an output file is an input, or an existing file that this project did not write.
    """
    check_outputs((save_dir / name for name in files), files_of([dataset]))
    save_dir.mkdir(parents=True, exist_ok=True)


class EvalOutputs:
    """Collects during an evaluation (`observe`) and writes the scores at its end (`finish`).

    Args:
        dataset: the evaluated dataset, with `file_list`.
        options: files to write.

    Raises:
        UsageError: a submission for a dataset that is not Cityscapes, or `save_dir` is a file.
    """

    def __init__(self, dataset, options: OutputOptions):
        require_folder(options.save_dir)
        images = [Path(image) for image, _ in dataset.file_list]
        if options.cityscapes_submission:
            odd = next((image for image in images if not image.name.endswith("_leftImg8bit.png")), None)
            if odd is not None or dataset.num_classes != len(CITYSCAPES_LABEL_IDS):
                raise UsageError(
                    "--cityscapes_submission: needs Cityscapes' 19 classes and *_leftImg8bit.png"
                    + (f", got {odd}" if odd else "")
                )
        self.dataset, self.options, self.classes = dataset, options, classes_of(dataset)
        self._names = names_of(images)
        self._boundary = BoundaryCounts(dataset.num_classes, dataset.ignore_index)
        self._calibration = CalibrationCounts()
        self._rows: list[dict] = []
        files = [*SCORE_FILES, "confusion.csv", "confusion.png"]
        files += ["cityscapes_submission.zip"] if options.cityscapes_submission else []
        files += [f"pred/{name}.png" for name in self._names] if options.save_pred else []
        files += [f"prob/{name}.npz" for name in self._names] if options.save_prob else []
        require_no_input(dataset, options.save_dir, files)

    def observe(self, index: int, scores, is_probability: bool, pred: np.ndarray, label: np.ndarray) -> None:
        """Adds one image, see `evaluate`; without scores no calibration error is computed.

        Raises:
            UsageError: `save_prob` without scores.
        """
        self._boundary.add(pred, label)
        if scores is not None:
            probabilities = (scores if is_probability else F.softmax(scores.astype("float32"), axis=0)).numpy()
            valid = label != self.dataset.ignore_index
            self._calibration.add(probabilities.max(0)[valid], (pred == label)[valid])
        elif self.options.save_prob:
            raise UsageError(
                "--save_prob: the exported model gives classes; export it with --output_op none or softmax"
            )
        confusion = confusion_matrix(pred, label, self.dataset.num_classes, self.dataset.ignore_index)
        self._rows.append(image_row(self.dataset.file_list[index][0], Areas.of(confusion), self.classes.names))
        name, folder = self._names[index], self.options.save_dir
        if self.options.save_pred:
            write_bytes(folder / "pred" / f"{name}.png", encode_label_png(pred, self.classes.colors))
        if self.options.save_prob:
            write_bytes(folder / "prob" / f"{name}.npz", probability_file(probabilities, self.options.save_prob))
        if self.options.cityscapes_submission:
            content = io.BytesIO()
            Image.fromarray(np.asarray(CITYSCAPES_LABEL_IDS, np.uint8)[pred]).save(content, "PNG")
            write_bytes(folder / ".submission" / f"{index}.png", content.getvalue(), own=True)

    def finish(self, result, about: dict) -> dict:
        """Writes scores.json, classes.csv, confusion.csv, confusion.png, images.csv and the submission; returns the scores.

        Args:
            result: an `EvalResult`; the same on every rank.
            about: further entries of scores.json, such as configuration and weights.
        """
        [self._boundary.counts] = collectives.all_reduce_sums([self._boundary.counts])
        self._calibration.counts = sum(collectives.all_gather_object(self._calibration.counts))  # floats
        rows = [row for rows in collectives.all_gather_object(self._rows) for row in rows]
        boundary = self._boundary.iou()
        table = class_table.class_rows(self.classes.names, result.confusion, boundary)
        scores = main_scores(
            result, boundary_iou=float(np.nanmean(boundary)), expected_calibration_error=self._calibration.error()
        )
        if collectives.is_main():
            from paddle_dnl.evaluation import curves  # matplotlib, which takes a second

            folder, names = self.options.save_dir, self.classes.names
            write_scores(folder, scores | {"classes": table} | about, rows)
            write_text(folder / "confusion.csv", class_table.confusion_csv(names, result.confusion))
            curves.draw_confusion(names, result.confusion, folder / "confusion.png")
            if self.options.cityscapes_submission:
                with (
                    new_file(folder / "cityscapes_submission.zip") as temporary,
                    zipfile.ZipFile(temporary, "w") as archive,
                ):
                    for index, (image, _) in enumerate(self.dataset.file_list):
                        part = folder / ".submission" / f"{index}.png"
                        archive.write(part, Path(image).name.replace("_leftImg8bit.png", "_pred_labelIds.png"))
                        part.unlink()
                (folder / ".submission").rmdir()
        boundary, calibration = (
            "unknown" if scores[name] is None else f"{scores[name]:.4f}"
            for name in ("boundary_iou", "expected_calibration_error")
        )
        logger.info(
            f"[EVAL] Boundary IoU: {boundary} Expected calibration error: {calibration}; files are in {self.options.save_dir}"
        )
        collectives.barrier("writing the scores")
        return scores


def main_scores(result, **more: float) -> dict:
    """Scores of a dataset as plain values; None for undefined ones.

    Args:
        result: an `EvalResult`.
        more: further scores.
    """
    metrics = result.metrics
    scores = {
        "miou": metrics.miou, "acc": metrics.acc, "kappa": metrics.kappa, "dice": metrics.dice, **more,
        "auc_roc": result.auc_roc, "images": result.num_images, "seconds": round(result.seconds, 3),
    }  # fmt: skip
    return {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in scores.items()}


def image_row(image: str, areas: Areas, names: tuple[str, ...]) -> dict:
    """The row of one image in `images.csv`; scores are None without a labelled pixel."""
    row = {"image": image, "miou": None, "acc": None, "worst_class": None, "worst_iou": None}
    if areas.labelled.any():
        metrics = Metrics.from_areas(areas)
        worst = int(np.nanargmin(metrics.class_iou))
        row |= {"miou": metrics.miou, "acc": metrics.acc, "worst_class": names[worst]}
        row["worst_iou"] = float(metrics.class_iou[worst])
    return row


def write_scores(folder: Path, scores: dict, rows: list[dict]) -> None:
    """Writes scores.json, classes.csv and images.csv.

    Args:
        folder: folder of the files.
        scores: with the rows of `class_table.class_rows` as `classes`.
        rows: from `image_row`; written in ascending order of mIoU, images without a score last.
    """
    rows = sorted(rows, key=lambda row: math.inf if row["miou"] is None else row["miou"])
    write_text(folder / "scores.json", json.dumps(scores, indent=2, ensure_ascii=False) + "\n")
    write_text(folder / "classes.csv", class_table.to_csv(scores["classes"]))
    write_text(folder / "images.csv", class_table.to_csv(rows))


def names_of(images: list[Path]) -> list[str]:
    """Names of the images without extension: paths relative to their common folder.

    Raises:
        DataError: two images would have the same name.
    """
    common = Path(os.path.commonpath([image.absolute().parent for image in images])) if images else Path()
    names = [image.absolute().relative_to(common).with_suffix("").as_posix() for image in images]
    seen: dict[str, Path] = {}
    for name, image in zip(names, images, strict=True):
        if seen.setdefault(name, image) != image:
            raise DataError(f"{seen[name]} and {image} would both be stored as {name}; give them names of their own")
    return names
