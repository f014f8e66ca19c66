"""Command line of tools/report.py: a training report as a single HTML file."""

import argparse
import json
from pathlib import Path

import numpy as np


def parse_args(argv=None) -> argparse.Namespace:
    """The flags of tools/report.py."""
    parser = argparse.ArgumentParser(description="Writes a report of a run: curves, scores, pictures, timings.")
    parser.add_argument("--config", required=True, help="configuration of the run; its val_dataset is the truth")
    parser.add_argument("--run_dir", required=True, help="--save_dir of train.py, trained with --use_vdl")
    parser.add_argument("--prediction_dir", required=True, help="label pictures written by deploy/python/infer.py")
    parser.add_argument("--save_dir", required=True, help="folder for report.html and its PNGs")
    parser.add_argument("--timings", help="JSON file of step name -> seconds")
    parser.add_argument("--num_rows", type=int, default=6, help="how many images are shown")
    parser.add_argument("--opts", nargs="+", help="key=value pairs that replace values of the configuration")
    return parser.parse_args(argv)


def _predictions(folder: Path) -> dict[str, Path]:
    """Label pictures by file stem."""
    from paddle_dnl.errors import DataError

    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.png")):
        if "added_prediction" in path.parts:  # overlays of the same names
            continue
        if path.stem in found:
            raise DataError(f"{folder}: {path.stem}.png occurs twice; give the folder of one inference run")
        found[path.stem] = path
    if not found:
        raise DataError(f"--prediction_dir {folder}: no .png files there")
    return found


def _score(dataset, predictions: dict[str, Path]):
    """The confusion matrix of all images, and each image's mIoU as (mIoU, image, label, prediction)."""
    from paddle_dnl.engine.metrics import Metrics, confusion_matrix
    from paddle_dnl.errors import DataError

    from PIL import Image

    total, images = None, []
    for image, label in dataset.file_list:
        path = predictions.get(Path(image).stem)
        if path is None:
            raise DataError(f"{image}: --prediction_dir holds no {Path(image).stem}.png")
        predicted, true = np.asarray(Image.open(path)), np.asarray(Image.open(label))
        matrix = confusion_matrix(predicted, true, dataset.num_classes, dataset.ignore_index)
        total = matrix if total is None else total + matrix
        images.append((Metrics.from_confusion(matrix).miou, image, true, predicted))
    return total, sorted(images, key=lambda entry: -entry[0])


def _draw_row(entry, colors, path: Path) -> None:
    """image | truth | prediction, side by side, as a PNG."""
    from paddle_dnl.visualize.overlay import colorize

    import cv2

    _, image, true, predicted = entry
    panels = [cv2.imread(image)[..., ::-1], colorize(true, colors), colorize(predicted, colors)]
    gap = np.full((panels[0].shape[0], 6, 3), 255, np.uint8)
    row = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)
    cv2.imwrite(str(path), row[..., ::-1])


def _summary(metrics, count: int) -> list[tuple[str, str]]:
    return [
        ("images", str(count)),
        ("mIoU", f"{metrics.miou:.4f}"),
        ("pixel accuracy", f"{metrics.acc:.4f}"),
        ("Kappa", f"{metrics.kappa:.4f}"),
        ("Dice", f"{metrics.dice:.4f}"),
    ]


def main(argv=None) -> int:
    """Writes report.html, training.png, class_iou.png, confusion.png and prediction_*.png."""
    args = parse_args(argv)
    from paddle_dnl import registry
    from paddle_dnl.config import Config
    from paddle_dnl.data.classes import class_info
    from paddle_dnl.engine.metrics import Metrics
    from paddle_dnl.environment import describe
    from paddle_dnl.log import logger
    from paddle_dnl.visualize import curves
    from paddle_dnl.visualize.report import Section, write_report

    config, out = Config(args.config, opts=args.opts), Path(args.save_dir)
    out.mkdir(parents=True, exist_ok=True)
    dataset = registry.build(config.val_dataset_cfg, "dataset", "val_dataset")
    info = class_info(config.val_dataset_cfg["type"], dataset.num_classes)
    confusion, images = _score(dataset, _predictions(Path(args.prediction_dir)))
    metrics = Metrics.from_confusion(confusion)

    curves.draw_training(curves.read_scalars(args.run_dir), out / "training.png")
    curves.draw_class_iou(info.names, metrics.class_iou, out / "class_iou.png")
    curves.draw_confusion(info.names, confusion, out / "confusion.png")
    # An even sample from best to worst, so that the pictures flatter nobody.
    chosen = np.unique(np.linspace(0, len(images) - 1, min(args.num_rows, len(images))).round().astype(int))
    rows = []
    for number, index in enumerate(chosen):
        path = out / f"prediction_{number}.png"
        _draw_row(images[index], info.colors, path)
        rows.append((path, f"{Path(images[index][1]).name}: mIoU of this image {images[index][0]:.3f}"))

    timings = json.loads(Path(args.timings).read_text()) if args.timings else {}
    sections = [
        Section("Result", rows=_summary(metrics, len(images)), note="Scores of the exported model's label pictures."),
        Section(
            "Image | truth | prediction",
            pictures=rows,
            legend=list(zip(info.names, info.colors, strict=True)),
            note="From the best to the worst image of the validation set in even steps.",
        ),
        Section("Training", pictures=[(out / "training.png", "Training loss and validation mIoU")]),
        Section("Classes", pictures=[(out / "class_iou.png", "IoU by class"), (out / "confusion.png", "Confusion")]),
        Section("Timings", rows=[(name, f"{seconds:.1f} s") for name, seconds in timings.items()]),
        Section("Environment", rows=list(describe().items())),
    ]
    title = f"{config.model_cfg['type']}: {Path(args.config).stem}"
    write_report(out / "report.html", title, f"{config.iters} iterations, batch {config.batch_size}", sections)
    logger.info(f"report: {out / 'report.html'}")
    return 0
