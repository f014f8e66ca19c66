# SPDX-License-Identifier: Apache-2.0
"""Command line of the programs in tests/reference: each compares what it computes with a stored copy, or stores it."""

import argparse


def make_parser(description: str) -> argparse.ArgumentParser:
    """`--check` or `--write`, one of which must be given."""
    parser = argparse.ArgumentParser(description=description)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="compare with what is stored; exit status 1 if it differs")
    action.add_argument("--write", action="store_true", help="store it")
    return parser
