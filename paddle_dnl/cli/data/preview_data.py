# SPDX-License-Identifier: Apache-2.0
"""Command line of `paddle-dnl data preview`."""

import argparse
from pathlib import Path

from paddle_dnl.cli import _arguments


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of `data preview`."""
    parser = argparse.ArgumentParser(
        description="Writes a page with pictures before and after augmentation, overlaid with their labels."
    )
    add = parser.add_argument
    add("config", help="a configuration")
    add("--out", default="preview.html", help="page to write")
    add("--samples", type=int, default=6, help="number of pictures per dataset")
    add("--times", type=int, default=4, help="number of augmented versions per training picture")
    add("--seed", type=_arguments.seed, default=0, help="seed of the augmentation")
    _arguments.add_multilabel(parser)
    _arguments.add_overrides(parser)
    return parser


def main(argv=None) -> int:
    """Writes the page; returns the exit status."""
    args = make_parser().parse_args(argv)
    _arguments.require_at_least(args, 1, "samples", "times")
    from paddle_dnl.data.prepare.preview import write_preview
    from paddle_dnl.data.prepare.sources import of_config
    from paddle_dnl.log import logger

    config = _arguments.make_config(args, use_multilabel=args.use_multilabel)
    title = f"Preview of {Path(args.config).name}"
    write_preview(of_config(config), args.out, title, args.samples, args.times, args.seed)
    logger.info(f"page: {args.out}")
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.data.preview_data")
