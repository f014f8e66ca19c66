# SPDX-License-Identifier: Apache-2.0
"""Command line of tools/count_macs.py."""

import argparse

from paddle_dnl.cli import _arguments


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of tools/count_macs.py."""
    parser = argparse.ArgumentParser(
        description="Prints the numbers of parameters and multiply-accumulate operations of a model."
    )
    _arguments.add_config(parser)
    parser.add_argument(
        "--input_shape", nargs=4, type=int, required=True, metavar=("B", "C", "H", "W"), help="such as 1 3 512 1024"
    )
    return parser


def main(argv=None) -> int:
    """Prints the two numbers; returns the exit status."""
    args = make_parser().parse_args(argv)
    from paddle_dnl.models.build import build_model
    from paddle_dnl.profile.macs import count_macs, count_parameters

    model = build_model(_arguments.make_config(args, for_training=False))
    macs = count_macs(model, args.input_shape)
    shape = "x".join(map(str, args.input_shape))
    print(f"parameters: {count_parameters(model) / 1e6:.2f} M")
    print(f"multiply-accumulates at {shape}: {macs / 1e9:.2f} G")
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.analysis.count_macs")
