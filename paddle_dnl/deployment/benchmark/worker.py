# SPDX-License-Identifier: Apache-2.0
"""Worker process of the benchmark: measures one backend at one setting and prints a JSON line.

Called as `python -m paddle_dnl.deployment.benchmark.worker SETTING`.

SETTING is JSON with the keys `folder`, `backend`, `precision`, `enable_mkldnn`, `threads`, `shape`, `warmup` and
`repeats`. The caller sets OMP_NUM_THREADS.
"""

import json
import sys

from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.deployment.runtime.options import BackendOptions
from paddle_dnl.deployment.runtime.selection import make_backend
from paddle_dnl.errors import PaddleDnlError
from paddle_dnl.log import logger
from paddle_dnl.profile.measuring import peak_bytes, resident_bytes, seconds_of_runs
from paddle_dnl.startup import configure_process

import numpy as np


def measure(setting: dict) -> dict:
    """Returns the seconds of each timed run, and the process's bytes before loading the model and at its peak.

    Raises:
        PaddleDnlError: the backend cannot be used for the folder.
    """
    options = BackendOptions(
        cpu_threads=setting["threads"], precision=setting["precision"], enable_mkldnn=setting["enable_mkldnn"]
    )
    base = resident_bytes()
    backend = make_backend(setting["backend"], read_deploy_config(setting["folder"]), options)
    batch = np.random.default_rng(0).standard_normal(setting["shape"], np.float32)
    seconds = seconds_of_runs(lambda: backend.run(batch), warmup=setting["warmup"], repeats=setting["repeats"])
    return {"seconds": seconds, "base_bytes": base, "peak_bytes": peak_bytes()}


def main() -> int:
    """Prints the measurement as JSON; if the backend cannot be used, prints the reason as `error` and returns 1."""
    logger.disabled = True
    configure_process()
    try:
        answer = measure(json.loads(sys.argv[1]))
    except PaddleDnlError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
    return int("error" in answer)


if __name__ == "__main__":
    sys.exit(main())
