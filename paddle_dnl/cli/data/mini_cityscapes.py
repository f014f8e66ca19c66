# SPDX-License-Identifier: Apache-2.0
"""Command line of `paddle-dnl data mini-cityscapes`."""

import argparse

from paddle_dnl.cli import _arguments


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of `paddle-dnl data mini-cityscapes`."""
    parser = argparse.ArgumentParser(
        description="Generates synthetic street scenes in the folder layout of Cityscapes."
    )
    parser.add_argument("--out", required=True, help="output folder")
    parser.add_argument("--train", type=int, default=64, help="number of training images")
    parser.add_argument("--val", type=int, default=16, help="number of validation images")
    parser.add_argument(
        "--size",
        type=_arguments.width_and_height,
        default=(512, 256),
        metavar="WIDTHxHEIGHT",
        help="size of the images",
    )
    parser.add_argument("--seed", type=_arguments.seed, default=0, help="seed of the scenes")
    return parser


def main(argv=None) -> int:
    """Generates the dataset; returns the exit status."""
    args = make_parser().parse_args(argv)
    from paddle_dnl.data.scenes.mini_cityscapes import generate

    generate(args.out, args.train, args.val, args.size, args.seed)
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.data.mini_cityscapes")
