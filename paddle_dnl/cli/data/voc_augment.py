# SPDX-License-Identifier: Apache-2.0
"""Command line of tools/data/voc_augment.py."""

import argparse


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of tools/data/voc_augment.py."""
    parser = argparse.ArgumentParser(
        description="Converts SBD labels to VOC2012/SegmentationClassAug; skips existing files."
    )
    parser.add_argument("--voc_path", required=True, help="VOCdevkit folder, which contains VOC2012")
    parser.add_argument("--sbd_path", required=True, help="SBD's benchmark_RELEASE folder")
    parser.add_argument("--force", action="store_true", help="convert again where the result exists")
    return parser


def main(argv=None) -> int:
    """Converts SBD's labels; returns the exit status."""
    args = make_parser().parse_args(argv)
    from paddle_dnl.data.prepare.voc_augment import augment

    augment(args.sbd_path, args.voc_path, args.force)
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.data.voc_augment")
