# SPDX-License-Identifier: Apache-2.0
"""Command line of `paddle-dnl data import`."""

import argparse
import os
from pathlib import Path

from paddle_dnl.cli._arguments import require_at_least
from paddle_dnl.errors import UsageError


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of `data import`."""
    parser = argparse.ArgumentParser(
        description="Converts annotations to pictures, label pictures and classes.txt. Does not change the source; a second "
        "run only converts what is missing."
    )
    add = parser.add_argument
    add("source", help="folder or file with the annotations")
    add("--to", required=True, help="output folder, new or from an earlier run of the same import")
    add(
        "--format",
        required=True,
        choices=("labelme", "coco", "voc", "cvat", "masks", "color-masks", "binary-masks"),
        help="cvat: `CVAT for images 1.1`; voc also reads CVAT's `Segmentation mask`",
    )
    add(
        "--classes",
        nargs="+",
        help="class names in the order of their numbers, or a classes.txt with colors; default: the classes found",
    )
    add("--images", help="folder of the pictures; default: as the format defines it")
    add("--labels", help="folder of the masks; default: as the format defines it")
    add("--threshold", type=int, help="binary masks with soft edges: minimum value of class 1")
    add(
        "--num_workers", type=int, default=os.cpu_count() or 1, help="number of processes; default: the number of cores"
    )
    add("--skip_bad_samples", action="store_true", help="skip samples that cannot be used, and list them")
    return parser


def main(argv=None) -> int:
    """Imports the annotations; returns the exit status."""
    args = make_parser().parse_args(argv)
    require_at_least(args, 1, "num_workers", "threshold")
    if args.threshold is not None and args.format != "binary-masks":
        raise UsageError("--threshold is for --format binary-masks")
    if args.images and args.format == "voc":
        raise UsageError("--images cannot be used with --format voc, whose pictures are in JPEGImages")
    if args.labels and args.format not in ("masks", "color-masks", "binary-masks"):
        raise UsageError(f"--labels is for masks, not for --format {args.format}")
    for name in ("images", "labels"):
        folder = getattr(args, name)
        if folder and not Path(folder).is_dir():
            raise UsageError(f"--{name} {folder}: no such folder")
    from paddle_dnl.data.classes import named_classes, read_classes
    from paddle_dnl.data.prepare.import_data import ImportOptions, import_data

    classes = None
    if args.classes:
        is_file = len(args.classes) == 1 and Path(args.classes[0]).suffix == ".txt"
        classes = read_classes(args.classes[0]) if is_file else named_classes(args.classes)
        if args.format == "color-masks" and not is_file:
            raise UsageError("--classes: color masks need a classes.txt with lines `name red green blue`")
    options = ImportOptions(
        args.format,
        classes,
        args.images and Path(args.images),
        args.labels and Path(args.labels),
        args.threshold,
        args.num_workers,
        args.skip_bad_samples,
    )
    import_data(args.source, args.to, options)
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.data.import_data")
