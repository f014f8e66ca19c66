# SPDX-License-Identifier: Apache-2.0
"""Charts of a training run and of evaluation scores, by matplotlib."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from paddle_dnl.errors import DataError  # noqa: E402
from paddle_dnl.files.atomic import new_file  # noqa: E402
from paddle_dnl.training.records.run_records import SCALARS, read_table  # noqa: E402

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

_INK, _LINE, _MARK = "#1f2933", "#2f6db5", "#c2571a"


def read_scalars(run_dir: str | Path) -> dict[str, tuple[list[int], list[float]]]:
    """Scalars of a run.

    Args:
        run_dir: folder with `scalars.csv`, or, from older versions, `vdlrecords.*.log` files; later values of a step count.

    Returns:
        Tag -> (steps, values), steps ascending.

    Raises:
        DataError: neither exists, or there is no training loss in it.
    """
    table = Path(run_dir) / SCALARS
    if table.is_file():
        return _complete(read_table(table), table)
    try:
        from visualdl import LogReader
    except ImportError as error:
        raise DataError(f"{run_dir}: no scalars.csv there, and VisualDL is not installed") from error

    files = sorted(Path(run_dir).glob("vdlrecords.*.log"))
    if not files:
        raise DataError(
            f"{run_dir}: no scalars.csv and no VisualDL file (vdlrecords.*.log) there; is it a run's folder?"
        )
    points: dict[str, dict[int, float]] = {}
    for file in files:
        try:
            reader = LogReader(file_path=str(file))
            for tag in reader.get_tags().get("scalar", []):
                points.setdefault(tag, {}).update(
                    {record.id: record.value for record in reader.get_data("scalar", tag)}
                )
        except Exception as error:  # any error of its parser
            raise DataError(f"{file}: is damaged ({type(error).__name__}); remove it, or train again") from error
    return _complete(points, run_dir)


def _complete(points: dict[str, dict[int, float]], source: str | Path) -> dict[str, tuple[list[int], list[float]]]:
    """Sorts the steps; refuses scalars without a training loss, as of a run that ended before its first log line."""
    if "Train/loss" not in points:
        raise DataError(f"{source}: holds no training loss; was the run ended before its first log line?")
    return {tag: (sorted(values), [values[step] for step in sorted(values)]) for tag, values in points.items()}


def _axes(height: float):
    figure, axes = plt.subplots(figsize=(8, height), dpi=110)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.tick_params(colors=_INK)
    return figure, axes


def _save(figure, path: str | Path) -> None:
    figure.tight_layout()
    with new_file(path) as temporary:
        figure.savefig(temporary)
    plt.close(figure)


def draw_training(scalars: dict[str, tuple[list[int], list[float]]], path: str | Path) -> None:
    """Loss on the left axis and validation mIoU on the right, over iterations; written as a PNG."""
    figure, axes = _axes(3.6)
    steps, loss = scalars["Train/loss"]
    axes.plot(steps, loss, color=_LINE, linewidth=1.5)
    axes.set_xlabel("iteration")
    axes.set_ylabel("training loss", color=_LINE)
    axes.set_ylim(bottom=0)
    if "Evaluate/mIoU" in scalars:
        right = axes.twinx()
        right.spines[["top"]].set_visible(False)
        right.plot(*scalars["Evaluate/mIoU"], color=_MARK, marker="o", markersize=4)
        right.set_ylabel("validation mIoU", color=_MARK)
        right.set_ylim(0, 1)
    _save(figure, path)


def draw_rates(rates: list[float], losses: list[float], smoothed: np.ndarray, path: str | Path) -> None:
    """Loss over learning rate on a logarithmic axis, each step and smoothed; written as a PNG."""
    figure, axes = _axes(3.6)
    axes.plot(rates, losses, color=_LINE, linewidth=0.8, alpha=0.4, label="step")
    axes.plot(rates, smoothed, color=_MARK, linewidth=1.8, label="smoothed")
    axes.set_xscale("log")
    low, high = min(smoothed), max(smoothed[: max(2, len(smoothed) // 2)])
    axes.set_ylim(low - 0.3 * (high - low) - 1e-6, high + 0.7 * (high - low) + 1e-6)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.legend(frameon=False)
    _save(figure, path)


def draw_class_iou(names: tuple[str, ...], class_iou: np.ndarray, path: str | Path) -> None:
    """Horizontal bars of per-class IoU, best first, with the mean as a line; absent classes (NaN) are left out."""
    present = [(iou, name) for name, iou in zip(names, class_iou, strict=True) if np.isfinite(iou)]
    values, labels = zip(*sorted(present), strict=True)
    figure, axes = _axes(0.9 + 0.24 * len(values))
    axes.barh(labels, values, color=_LINE, height=0.7)
    for row, value in enumerate(values):
        axes.text(value + 0.01, row, f"{value:.2f}", va="center", fontsize=8, color=_INK)
    axes.axvline(float(np.mean(values)), color=_MARK, linewidth=1.5)
    axes.set_xlim(0, 1.06)
    axes.set_xlabel(f"IoU (line: mean {np.mean(values):.3f})")
    axes.grid(axis="y", visible=False)
    _save(figure, path)


def draw_confusion(names: tuple[str, ...], confusion: np.ndarray, path: str | Path) -> None:
    """Confusion matrix `[K, K]` with each true class (row) as shares of its pixels."""
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    figure, axes = plt.subplots(figsize=(7.5, 6.5), dpi=110)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    figure.colorbar(image, fraction=0.04)
    _save(figure, path)
