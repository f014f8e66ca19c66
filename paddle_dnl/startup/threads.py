"""How many threads this process computes with, settled before Paddle is imported."""

import os
import sys

VARIABLE = "OMP_NUM_THREADS"


def choose() -> None:
    """Sets OMP_NUM_THREADS to this process's share of the cores, unless the user has set it or Paddle is there already.

    Paddle pins itself to one thread at import when the variable is missing: half the speed of matrix products on two cores.
    """
    if "paddle" in sys.modules or VARIABLE in os.environ:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ[VARIABLE] = str(max(1, cores // _local_ranks()))


def _local_ranks() -> int:
    """Processes of this run on this machine, as Paddle's launcher says."""
    given = os.environ.get("PADDLE_LOCAL_SIZE") or os.environ.get("PADDLE_TRAINERS_NUM") or ""
    return max(1, int(given)) if given.isdigit() else 1
