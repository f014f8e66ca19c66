"""Serves an exported model over HTTP; see `python deploy/serving/serve.py --help` and docs/serving.md."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent)]

from paddle_dnl.cli._run import run  # noqa: E402

if __name__ == "__main__":
    run("segmentation_service.main")
