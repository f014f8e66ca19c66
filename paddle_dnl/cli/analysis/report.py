# SPDX-License-Identifier: Apache-2.0
"""Command line of tools/report.py: writes a report of a training run as a single HTML file."""

import argparse
from pathlib import Path

from paddle_dnl.cli import _arguments
from paddle_dnl.errors import DataError
from paddle_dnl.files.reading import parse_json, read_bytes

import numpy as np

# Width in pixels: large enough to see errors, small enough for a dozen pictures on a page.
_PANEL_WIDTH = 640
_MAX_SECONDS = 1e9  # 30 years


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of tools/report.py."""
    parser = argparse.ArgumentParser(description="Writes a report of a run: scores, pictures, curves, timings.")
    parser.add_argument("--run_dir", required=True, help="folder of the run: --save_dir of train.py")
    _arguments.add_config(parser, "configuration of the val_dataset; default: config.yml of the run", required=False)
    parser.add_argument("--model_path", help="weights to evaluate; default: best_model/model.pdparams of the run")
    parser.add_argument("--prediction_dir", help="label pictures of predict.py or infer.py, instead of a model")
    parser.add_argument("--save_dir", help="output folder of report.html and its PNGs; default: that of the run")
    parser.add_argument("--scores", help="scores.json of val.py --save_dir; default: that in the run's folder, if any")
    parser.add_argument("--timings", help="JSON file with a mapping of step name to seconds")
    parser.add_argument("--num_rows", type=int, default=6, help="number of images to show from the best to the worst")
    parser.add_argument("--num_worst", type=int, default=3, help="number of worst images to show separately")
    parser.add_argument("--device", help="cpu, gpu, ...; default: gpu if available")
    return parser


def _source(args: argparse.Namespace, config, dataset):
    """Returns a function from an image's index to its predicted label, and the report's sentence about their source."""
    from paddle_dnl.errors import UsageError
    from paddle_dnl.evaluation.image_scores import ModelLabels, StoredLabels
    from paddle_dnl.evaluation.options import InferenceOptions
    from paddle_dnl.models.build import build_model

    if args.prediction_dir:
        if args.model_path:
            raise UsageError("--prediction_dir and --model_path: give one of them")
        return StoredLabels(args.prediction_dir, dataset), f"Scores of the label pictures in {args.prediction_dir}."
    weights = Path(args.model_path or Path(args.run_dir) / "best_model" / "model.pdparams")
    if not weights.is_file():
        raise UsageError(f"{weights}: no such weights; give --model_path, or --prediction_dir with label pictures")
    _arguments.select_device(args.device)
    model = build_model(config, pretrained=str(weights))
    return ModelLabels(model, dataset, InferenceOptions.of(config.test_config)), f"Scores of {weights}, at one scale."


def _more_scores(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Returns the rows of boundary and calibration scores that val.py --save_dir wrote."""
    path = Path(args.scores or Path(args.run_dir) / "scores.json")
    if not path.is_file():
        if args.scores:
            raise DataError(f"--scores {path}: no such file; val.py --save_dir writes it")
        return []
    try:
        found = parse_json(read_bytes(path))
        names = {"boundary_iou": "boundary IoU", "expected_calibration_error": "expected calibration error"}
        return [
            (f"{text} ({path.name})", f"{found[key]:.4f}") for key, text in names.items() if found.get(key) is not None
        ]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: is not a scores.json of val.py ({error})") from error


def training_times(scalars: dict[str, tuple[list[int], list[float]]], batch_size: int) -> list[tuple[str, str]]:
    """Returns the rows about a run's speed.

    Args:
        scalars: name -> (steps, values), from the VisualDL files; each value is the mean since the previous step.
        batch_size: images per step and process.
    """
    if "Train/batch_cost" not in scalars:
        return []
    steps, seconds = (np.asarray(values, np.float64) for values in scalars["Train/batch_cost"])
    counts = np.diff(steps, prepend=0)
    if len(counts) > 1:  # the files of a resumed run may not start at 0
        counts[0] = min(counts[:2])
    total = float(counts @ seconds)
    rows = [
        ("training steps", f"{int(steps[-1])} in {total:.0f} s, without evaluation and saving"),
        ("seconds per step", f"{np.median(seconds):.3f} (median), {total / counts.sum():.3f} (mean)"),
        ("images per second and process", f"{batch_size * counts.sum() / total:.2f}"),
    ]
    if "Train/reader_cost" in scalars:
        waiting = float(counts @ np.asarray(scalars["Train/reader_cost"][1], np.float64))
        rows.append(("share of the time spent waiting for data", f"{100 * waiting / total:.1f} %"))
    return rows


def _pictures(dataset, scores, predicted, colors, chosen, prefix: Path) -> list[tuple[Path, str]]:
    """Writes PNG files of image, label and prediction side by side; returns their paths and captions."""
    from paddle_dnl.data.images.image_format import ImageFormat
    from paddle_dnl.data.overlay import colorize, displayed, save_image
    from paddle_dnl.evaluation.image_scores import true_label

    import cv2

    # Nearest neighbor for labels, so that colors are not mixed; averaging for the image.
    ways = (cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_NEAREST)
    rows = []
    for number, place in enumerate(chosen):
        score, path = scores[place], prefix.with_name(f"{prefix.name}_{number}.png")
        file = dataset.file_list[score.index][0]
        image = displayed(ImageFormat.of(dataset).read(file))
        labels = (true_label(dataset, score.index), predicted(score.index))
        panels = [image, *(colorize(label, colors)[..., ::-1] for label in labels)]
        height, width = image.shape[:2]
        size = (min(width, _PANEL_WIDTH), max(1, round(height * min(1, _PANEL_WIDTH / width))))
        panels = [cv2.resize(panel, size, interpolation=way) for panel, way in zip(panels, ways, strict=True)]
        gap = np.full((size[1], 6, 3), 255, np.uint8)
        save_image(path, np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1))
        rows.append((path, f"{Path(file).name}: mIoU of this image {score.miou:.3f}"))
    return rows


def _result_sections(args, config, out: Path, more_scores: list[tuple[str, str]]) -> list:
    """Returns the sections about scores, an even sample of images, the worst images, and the classes."""
    from paddle_dnl import registry
    from paddle_dnl.data.classes import IGNORED_COLOR, classes_of
    from paddle_dnl.data.file_list import even_indices, files_of
    from paddle_dnl.data.page import Section
    from paddle_dnl.evaluation import curves
    from paddle_dnl.evaluation.class_table import class_rows, table_cells
    from paddle_dnl.evaluation.image_scores import score_images
    from paddle_dnl.evaluation.metrics import Metrics
    from paddle_dnl.files.outputs import check_outputs

    dataset = registry.build(config.val_dataset_cfg, "dataset", "val_dataset")
    check_outputs([out / name for name in _names(args)], files_of([dataset]), root=out)
    info = classes_of(dataset)
    predicted, note = _source(args, config, dataset)
    confusion, scores = score_images(dataset, predicted)
    metrics = Metrics.from_confusion(confusion)
    curves.draw_class_iou(info.names, metrics.class_iou, out / "class_iou.png")
    curves.draw_confusion(info.names, confusion, out / "confusion.png")
    # Evenly spaced from best to worst, so that the selection is representative.
    even = even_indices(len(scores), args.num_rows)
    worst = range(len(scores) - 1, max(len(scores) - 1 - args.num_worst, -1), -1)
    legend = [*zip(info.names, info.colors, strict=True), ("ignored", IGNORED_COLOR)]
    draw = (dataset, scores, predicted, info.colors)
    return [
        Section(
            "Result",
            rows=[
                ("images", str(len(dataset))),
                ("mIoU", f"{metrics.miou:.4f}"),
                ("pixel accuracy", f"{metrics.acc:.4f}"),
                ("Kappa", f"{metrics.kappa:.4f}"),
                ("Dice", f"{metrics.dice:.4f}"),
            ]
            + more_scores,
            note=note,
        ),
        Section(
            "Image | truth | prediction",
            pictures=_pictures(*draw, even, out / "prediction"),
            legend=legend,
            note="From the best to the worst image of the validation set in even steps.",
        ),
        Section("Worst images", pictures=_pictures(*draw, worst, out / "worst"), note="The worst first."),
        Section(
            "Classes",
            table=table_cells(class_rows(info.names, confusion)),
            pictures=[(out / "class_iou.png", "IoU by class"), (out / "confusion.png", "Confusion")],
        ),
    ]


def _timings(path: str | None) -> dict[str, float]:
    """Reads the seconds of each step.

    Raises:
        DataError: not a JSON mapping to finite times from 0.
    """
    if path is None:
        return {}
    try:
        found = parse_json(read_bytes(path))
    except (OSError, ValueError) as error:
        raise DataError(f"--timings {path}: cannot be read as JSON ({error})") from error
    if not isinstance(found, dict) or not all(
        type(value) in (int, float) and 0 <= value <= _MAX_SECONDS for value in found.values()
    ):
        raise DataError(f'--timings {path}: expected a mapping of step names to seconds, for example {{"train": 12.5}}')
    return found


def _names(args: argparse.Namespace) -> list[str]:
    """Returns the names of all files that a report may consist of."""
    pictures = [
        f"{kind}_{i}.png" for kind, n in (("prediction", args.num_rows), ("worst", args.num_worst)) for i in range(n)
    ]
    return ["report.html", "training.png", "class_iou.png", "confusion.png", *pictures]


def main(argv=None) -> int:
    """Writes report.html, training.png, class_iou.png, confusion.png, prediction_*.png and worst_*.png."""
    args = make_parser().parse_args(argv)
    from paddle_dnl.config.lookup import find_config
    from paddle_dnl.data.page import Section, write_page
    from paddle_dnl.errors import UsageError
    from paddle_dnl.evaluation import curves
    from paddle_dnl.files.outputs import check_outputs
    from paddle_dnl.log import logger
    from paddle_dnl.startup.environment import describe
    from paddle_dnl.training.checkpoints.run_folder import config_of

    _arguments.require_at_least(args, 1, "num_rows")
    _arguments.require_at_least(args, 0, "num_worst")
    if not Path(args.run_dir).is_dir():
        raise UsageError(f"--run_dir {args.run_dir}: no such folder; give the --save_dir of a training")
    path = find_config(args.config) if args.config else config_of(args.run_dir)
    if not path.is_file():
        raise UsageError(f"{path}: no such configuration; give --config")
    config, out = _arguments.make_config(args, path), Path(args.save_dir or args.run_dir)
    if not config.val_dataset_cfg:
        raise UsageError(f"{path} has no val_dataset")
    check_outputs(
        [out / name for name in _names(args)], [*config.files, args.model_path, args.timings, args.scores], root=out
    )
    timings, more_scores = _timings(args.timings), _more_scores(args)  # before the evaluation, which takes minutes
    scalars = curves.read_scalars(args.run_dir)
    result, sample, worst, classes = _result_sections(args, config, out, more_scores)
    curves.draw_training(scalars, out / "training.png")
    times = training_times(scalars, config.batch_size) + [(name, f"{s:.1f} s") for name, s in timings.items()]
    curve = Section("Training", pictures=[(out / "training.png", "Training loss and validation mIoU")])
    environment = Section("Environment", rows=list(describe().items()))
    sections = [result, sample, worst, curve, classes, Section("Timings", rows=times), environment]
    title = f"{config.model_cfg['type']}: {path.stem if args.config else Path(args.run_dir).name}"
    write_page(out / "report.html", title, f"{config.iters} iterations, batch {config.batch_size}", sections)
    logger.info(f"report: {out / 'report.html'}")
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.analysis.report")
