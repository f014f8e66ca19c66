# SPDX-License-Identifier: Apache-2.0
"""Command line of tools/data/convert_cityscapes.py."""

import argparse

from paddle_dnl.cli._arguments import require_at_least


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of tools/data/convert_cityscapes.py."""
    parser = argparse.ArgumentParser(
        description="Converts Cityscapes polygons to *_labelTrainIds.png; skips existing files."
    )
    parser.add_argument("--cityscapes_path", required=True, help="folder that contains gtFine")
    parser.add_argument("--num_workers", type=int, default=8, help="number of processes")
    parser.add_argument("--force", action="store_true", help="convert again where the result exists")
    return parser


def main(argv=None) -> int:
    """Converts polygons to label pictures; returns the exit status."""
    args = make_parser().parse_args(argv)
    require_at_least(args, 0, "num_workers")
    from paddle_dnl.data.prepare.convert_cityscapes import convert_tree

    convert_tree(args.cityscapes_path, args.num_workers, args.force)
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.data.convert_cityscapes")
