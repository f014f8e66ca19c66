# SPDX-License-Identifier: Apache-2.0
"""Writes docs/model_zoo.md, the README of each folder of configurations and the table in both READMEs from configs/zoo.yml."""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from paddle_dnl.cli._run import run  # noqa: E402
from paddle_dnl.config.zoo import pages  # noqa: E402
from paddle_dnl.files.atomic import write_text  # noqa: E402


def main(argv=None) -> int:
    """Writes the pages; returns the exit status."""
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    for path, text in pages(ROOT).items():
        write_text(path, text, own=True)
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    run("model_zoo")
