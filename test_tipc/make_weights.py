# SPDX-License-Identifier: Apache-2.0
"""Trains the weights that whole_infer exports (line 37), with the training command of the same file and a few steps."""

import shlex
from pathlib import Path

from tipc_config import TipcConfig
from tipc_process import run_script, run_step


def main(argv: list[str]) -> int:
    """`make_weights.py CONFIG`"""
    config = TipcConfig(argv[0])
    for weights in config.line(37).choices:
        folder = Path(weights).parent.parent
        if Path(weights).exists():
            continue
        command = [config.python, *shlex.split(config.line(16).value), "--device=cpu", f"--save_dir={folder}"]
        command += config.line(7).flag("4") + config.line(9).flag("2")
        status = run_step(command)
        if status:
            return status
    return 0


if __name__ == "__main__":
    run_script(main)
