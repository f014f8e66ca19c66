# SPDX-License-Identifier: Apache-2.0
"""Command line of `paddle-dnl data split`."""

import argparse

from paddle_dnl.cli import _arguments


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of `data split`."""
    parser = argparse.ArgumentParser(
        description="Writes train.txt, val.txt and test.txt of a folder with pictures and label pictures, paired by name, "
        "so that each list has all classes if possible."
    )
    add = parser.add_argument
    add("folder", help="folder of the data, for example written by `data import`")
    add("--val", type=float, default=0.2, help="share of the validation list")
    add("--test", type=float, default=0.0, help="share of the test list")
    add("--seed", type=_arguments.seed, default=0, help="the same seed gives the same lists")
    add(
        "--group-by",
        "--group_by",
        dest="group_by",
        help="regular expression; names with the same match are in the same list",
    )
    add("--images", help="folder of the pictures below FOLDER; default: the usual names")
    add("--labels", help="folder of the labels below FOLDER; default: the usual names")
    return parser


def main(argv=None) -> int:
    """Writes the lists; returns the exit status."""
    args = make_parser().parse_args(argv)
    from paddle_dnl.data.prepare.split import split_folder

    settings = {key: value for key, value in vars(args).items() if key != "folder"}
    split_folder(args.folder, **settings)
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.data.split_data")
