# SPDX-License-Identifier: Apache-2.0
"""Serves an exported model over HTTP; see `python deploy/serving/serve.py --help` and docs/serving.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from paddle_dnl.cli._run import run  # noqa: E402

if __name__ == "__main__":
    run("paddle_dnl.cli.deploy.serve")
