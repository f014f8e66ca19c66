# SPDX-License-Identifier: Apache-2.0
"""Command line of `paddle-dnl data describe`."""

import argparse
from pathlib import Path

from paddle_dnl.cli import _arguments


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of `data describe`."""
    parser = argparse.ArgumentParser(
        description="Counts pixels and images per class, image sizes and duplicates; suggests class weights and a crop size."
    )
    add = parser.add_argument
    add("source", help="a configuration, or a folder with train.txt, val.txt and classes.txt")
    add("--save_dir", help="output folder of describe.json and describe.html")
    add("--samples", type=int, default=6, help="number of pictures per split on the page")
    add("--num_workers", type=int, default=0, help="number of processes that read")
    add("--skip_bad_samples", action="store_true", help="skip samples that cannot be used, and list them")
    _arguments.add_multilabel(parser)
    _arguments.add_overrides(parser)
    return parser


def datasets_of(args: argparse.Namespace) -> dict:
    """Returns split -> dataset of `source`."""
    from paddle_dnl.data.prepare import sources

    if Path(args.source).is_dir():
        return sources.of_folder(Path(args.source), args.use_multilabel)
    return sources.of_config(_arguments.make_config(args, args.source, use_multilabel=args.use_multilabel))


def main(argv=None) -> int:
    """Prints and writes the description; returns the exit status."""
    args = make_parser().parse_args(argv)
    from paddle_dnl.data.file_list import files_of
    from paddle_dnl.data.prepare import describe
    from paddle_dnl.files.outputs import check_outputs
    from paddle_dnl.log import logger

    datasets = datasets_of(args)
    if args.save_dir:
        check_outputs((Path(args.save_dir, name) for name in describe.NAMES), files_of(datasets.values()))
    found = describe.describe(datasets, args.num_workers, args.skip_bad_samples)
    print(describe.to_text(found), flush=True)
    if args.save_dir:
        title = f"Data: {args.source}"
        logger.info(f"page: {describe.write_outputs(found, datasets, args.save_dir, title, args.samples)}")
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.data.describe_data")
