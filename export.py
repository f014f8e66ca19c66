# SPDX-License-Identifier: Apache-2.0
"""See `python export.py --help`."""

from paddle_dnl.cli._run import run

if __name__ == "__main__":
    run("paddle_dnl.cli.export")
