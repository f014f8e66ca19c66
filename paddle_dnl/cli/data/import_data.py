# SPDX-License-Identifier: Apache-2.0
"""Command line of `paddle-dnl data import`."""

import argparse
import os
from pathlib import Path

from paddle_dnl.cli._arguments import require_at_least
from paddle_dnl.errors import UsageError


def make_parser() -> argparse.ArgumentParser:
    """The flags of `data import`."""
    parser = argparse.ArgumentParser(
        description="Turns annotations into pictures, label pictures and classes.txt. The source is not changed; a second "
        "run does what is missing."
    )
    add = parser.add_argument
    add("source", help="folder or file of annotations")
    add("--to", required=True, help="folder of the result, new or of the same import")
    add(
        "--format",
        required=True,
        choices=("labelme", "coco", "voc", "cvat", "masks", "color-masks", "binary-masks"),
        help="cvat: `CVAT for images 1.1`; voc also reads CVAT's `Segmentation mask`",
    )
    add(
        "--classes",
        nargs="+",
        help="names in the order of their numbers, or a classes.txt with colours; default: what is found",
    )
    add("--images", help="folder of the pictures, where it is not where the format has it")
    add("--labels", help="folder of the masks, where it is not where the format has it")
    add("--threshold", type=int, help="binary masks with soft edges: values from here on are 1")
    add("--num_workers", type=int, default=os.cpu_count() or 1, help="processes; default: one per core")
    add("--skip_bad_samples", action="store_true", help="go on without samples that cannot be used; lists them")
    return parser


def main(argv=None) -> int:
    """Imports; returns the exit status."""
    args = make_parser().parse_args(argv)
    require_at_least(args, 1, "num_workers")
    if args.threshold is not None and args.format != "binary-masks":
        raise UsageError("--threshold goes with --format binary-masks")
    if args.images and args.format == "voc":
        raise UsageError("--images does not go with --format voc, whose pictures are in JPEGImages")
    if args.labels and args.format not in ("masks", "color-masks", "binary-masks"):
        raise UsageError(f"--labels goes with masks, not with --format {args.format}")
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
            raise UsageError("--classes: masks of colours need a classes.txt with `name red green blue` lines")
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
