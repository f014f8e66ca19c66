# SPDX-License-Identifier: Apache-2.0
"""Scores per class as rows, text and CSV."""

import csv
import io
import math

from paddle_dnl.evaluation.metrics import Areas, Metrics

import numpy as np


def class_rows(
    names: tuple[str, ...], counts: np.ndarray | Areas, boundary_iou: np.ndarray | None = None
) -> list[dict]:
    """Scores of each class: `name`, `iou`, `accuracy`, `precision`, `recall`, `dice`, `share`; None for absent classes.

    `accuracy` is that of the two classes "this one" and "any other" over all pixels, `share` the class's share of the labelled
    pixels. With `boundary_iou` that score too.

    Args:
        names: class names.
        counts: a confusion matrix, int64 `[K, K]`, rows are labels; or `Areas`.
        boundary_iou: `[K]`, see `paddle_dnl.evaluation.boundary`.
    """
    areas = counts if isinstance(counts, Areas) else Areas.of(counts)
    metrics = Metrics.from_areas(areas)
    right, labelled, predicted = areas.right, areas.labelled, areas.predicted
    totals = np.broadcast_to(areas.counted, right.shape)
    rows = []
    for k, name in enumerate(names):
        values = {
            "iou": metrics.class_iou[k],
            "accuracy": float("nan")
            if k in metrics.absent
            else 1 - (labelled[k] + predicted[k] - 2 * right[k]) / totals[k],
            "precision": metrics.class_precision[k],
            "recall": metrics.class_recall[k],
            "dice": metrics.class_dice[k],
            "share": labelled[k] / totals[k],
        }
        if boundary_iou is not None:
            values["boundary_iou"] = boundary_iou[k]
        rows.append({"name": name} | {key: None if math.isnan(v) else float(v) for key, v in values.items()})
    return rows


def _cell(value) -> str:
    """Four digits, or `-` for an absent class."""
    return value if isinstance(value, str) else "-" if value is None else f"{value:.4f}"


def table_cells(rows: list[dict]) -> list[list[str]]:
    """Header and cells as text."""
    keys = list(rows[0])
    header = ["class" if key == "name" else key.replace("_", " ").replace("iou", "IoU") for key in keys]
    return [header, *([_cell(row[key]) for key in keys] for row in rows)]


def table_text(rows: list[dict]) -> str:
    """Aligned columns for a terminal."""
    cells = table_cells(rows)
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = []
    for line in cells:
        first, *others = zip(line, widths, strict=True)
        lines.append("  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]).rstrip())
    return "\n".join(lines)


def to_csv(rows: list[dict]) -> str:
    """Rows with equal keys as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return text.getvalue()


def confusion_csv(names: tuple[str, ...], confusion: np.ndarray) -> str:
    """Pixel counts; a row per label, a column per prediction."""
    rows = [
        {"label \\ prediction": n} | dict(zip(names, map(int, line), strict=True))
        for n, line in zip(names, confusion, strict=True)
    ]
    return to_csv(rows)
