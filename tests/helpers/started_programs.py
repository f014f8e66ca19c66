# SPDX-License-Identifier: Apache-2.0
"""Programs that tests start as a user does, in one process or several."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def environment(**more: str) -> dict[str, str]:
    """That of the tests without what a launcher, or a choice of GPUs, has put there; and `more`."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("PADDLE_", "CUDA_VISIBLE"))} | more


def run_program(script: str | Path, folder: Path, ranks: int, *words: str) -> str:
    """Runs a script with success.

    Args:
        script: its name in the repository, or its path.
        folder: where it runs, with the launcher's logs in `log`.
        ranks: more than one for a launch.
        words: its arguments.

    Returns:
        Its standard output, of a launch the logs of all ranks.
    """
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(ranks), "--log_dir", str(folder / "log")]
    done = subprocess.run(
        [sys.executable, *(launch if ranks > 1 else []), str(ROOT / script), *words],
        cwd=folder,
        env=environment(PYTHONPATH=str(ROOT), SEG_HOME=str(folder / "home")),
        capture_output=True,
        text=True,
        timeout=300,
    )
    # The launcher's own output repeats the first rank's log.
    said = "".join(path.read_text() for path in folder.glob("log/workerlog.*")) if ranks > 1 else done.stdout
    assert done.returncode == 0, said[-2000:] + done.stdout[-2000:] + done.stderr[-2000:]
    return said
