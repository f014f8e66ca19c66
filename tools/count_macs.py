# SPDX-License-Identifier: Apache-2.0
"""See `python tools/count_macs.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from paddle_dnl.cli._run import run  # noqa: E402

if __name__ == "__main__":
    run("paddle_dnl.cli.analysis.count_macs")
