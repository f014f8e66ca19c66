# SPDX-License-Identifier: Apache-2.0
"""Command line of tools/data/convert_pascal_context.py."""

import argparse


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of tools/data/convert_pascal_context.py."""
    parser = argparse.ArgumentParser(
        description="Converts PASCAL Context annotations to VOC2010/Context; skips existing files."
    )
    parser.add_argument("--voc_path", required=True, help="the VOC2010 folder")
    parser.add_argument("--annotation", help="JSON file; default: trainval_merged.json in the VOC2010 folder")
    parser.add_argument("--force", action="store_true", help="convert again where the result exists")
    return parser


def main(argv=None) -> int:
    """Converts the annotations; returns the exit status."""
    args = make_parser().parse_args(argv)
    from paddle_dnl.data.prepare.convert_pascal_context import convert

    convert(args.voc_path, args.annotation, args.force)
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.data.convert_pascal_context")
