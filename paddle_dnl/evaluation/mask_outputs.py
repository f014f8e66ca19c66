# SPDX-License-Identifier: Apache-2.0
"""Output files of `val.py --use_multilabel --save_dir`: scores as JSON and CSV, predicted masks."""

from pathlib import Path

from paddle_dnl.data.classes import BACKGROUND_COLOR, classes_of
from paddle_dnl.data.masks import join_masks
from paddle_dnl.data.overlay import encode_label_png
from paddle_dnl.distributed import collectives
from paddle_dnl.evaluation import class_table
from paddle_dnl.evaluation.metrics import Areas, mask_counts
from paddle_dnl.evaluation.outputs import SCORE_FILES, image_row, main_scores, names_of, require_no_input, write_scores
from paddle_dnl.files.atomic import write_bytes
from paddle_dnl.files.outputs import require_folder
from paddle_dnl.log import logger

import numpy as np


class MaskOutputs:
    """Collects during an evaluation of masks (`observe`) and writes the scores at its end (`finish`).

    Args:
        dataset: the evaluated dataset, with `file_list`.
        save_dir: folder of all files.
        save_pred: write `pred/NAME.png`, masks side by side as in label pictures.

    Raises:
        UsageError: `save_dir` is a file.
    """

    def __init__(self, dataset, save_dir: Path, save_pred: bool):
        require_folder(save_dir)
        self.dataset, self.save_dir, self.save_pred = dataset, save_dir, save_pred
        self._class_names = classes_of(dataset).names
        self._names = names_of([Path(image) for image, _ in dataset.file_list])
        self._rows: list[dict] = []
        require_no_input(dataset, save_dir, [*SCORE_FILES, *(f"pred/{name}.png" for name in self._names if save_pred)])

    def observe(self, index: int, scores, is_probability: bool, pred: np.ndarray, label: np.ndarray) -> None:
        """Adds one image, prediction and label `[K, h, w]`; see `evaluate`."""
        areas = Areas(*mask_counts(pred[None], label[None], self.dataset.ignore_index))
        self._rows.append(image_row(self.dataset.file_list[index][0], areas, self._class_names))
        if self.save_pred:
            stored = join_masks(pred.astype(np.uint8))
            content = encode_label_png(stored, (BACKGROUND_COLOR, (255, 255, 255)))
            write_bytes(self.save_dir / "pred" / f"{self._names[index]}.png", content)

    def finish(self, result, about: dict) -> dict:
        """Writes scores.json, classes.csv and images.csv; returns the scores.

        Args:
            result: an `EvalResult`; the same on every rank.
            about: what was evaluated, such as configuration and weights; stored in scores.json.
        """
        rows = [row for rows in collectives.all_gather_object(self._rows) for row in rows]
        table = class_table.class_rows(self._class_names, result.areas)
        scores = main_scores(result)
        if collectives.is_main():
            write_scores(self.save_dir, scores | {"classes": table} | about, rows)
        logger.info(f"[EVAL] files are in {self.save_dir}")
        collectives.barrier("writing the scores")
        return scores
