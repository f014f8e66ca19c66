# SPDX-License-Identifier: Apache-2.0
"""Sets the number of compute threads of this process before Paddle is imported.

The wait policy of OpenMP threads (`OMP_WAIT_POLICY=passive`, `KMP_BLOCKTIME=0`) stays at its default: on two cores with
a load of 5, a step of a small network took 0.40 and 0.32 s with the default, 0.32 and 0.44 s passive, 0.34 and 0.53 s
without spinning.
"""

import math
import os
import sys
from pathlib import Path

VARIABLE = "OMP_NUM_THREADS"


def choose() -> None:
    """Sets OMP_NUM_THREADS to this process's share of the cores, unless it is set or Paddle is imported.

    Without the variable Paddle uses one thread from its import on, which halves the speed of matrix products on two
    cores.
    """
    if "paddle" in sys.modules or (os.environ.get(VARIABLE) and not is_of_launcher()):
        return
    os.environ[VARIABLE] = str(max(1, available_cores() // local_ranks()))


def local_ranks() -> int:
    """Returns the number of this run's processes on this machine, which share its cores and memory.

    If only the number of all processes is known, all are assumed to be on this machine: too small a share of the
    resources costs time, too large a share ends the run.
    """
    given = os.environ.get("PADDLE_LOCAL_SIZE") or os.environ.get("PADDLE_TRAINERS_NUM") or ""
    return max(1, int(given)) if given.isdigit() else 1


def is_of_launcher() -> bool:
    """Whether OMP_NUM_THREADS comes from `paddle.distributed.launch`, which passes 1 to all ranks.

    A value of the user is also in the environment at the start of the launcher, which Linux provides in /proc.
    """
    if os.environ.get(VARIABLE) != "1" or "PADDLE_TRAINER_ID" not in os.environ:
        return False
    try:
        given = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return not any(entry.startswith(f"{VARIABLE}=".encode()) for entry in given)


def available_cores() -> int:
    """Returns the number of cores that this process may use, by its affinity and the CPU quota of its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(cores, cpu_quota())))


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Returns the smallest CPU quota of this process's control group and its ancestors in cores, or infinity.

    Args:
        root: mount point of control groups, version 1 or 2.
        own: file with lines `ID:CONTROLLERS:PATH` of this process.
    """
    quotas = [math.inf]
    for line in _text(own).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            tops = [root, root / "unified"]
        elif "cpu" in controllers.split(","):
            tops = [root / controllers, root / "cpu"]
        else:
            continue
        for top in tops:
            # In a container the path may be that of the host and not exist; the mount point is then the own group.
            folder = top / path.lstrip("/")
            quotas += [_quota_of(group) for group in (folder, *folder.parents) if group.is_relative_to(top)]
    return min(quotas)


def _quota_of(group: Path) -> float:
    limit = _text(group / "cpu.max").split()  # version 2: `200000 100000` or `max 100000`
    if not limit:
        limit = [_text(group / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]  # -1: no limit
    try:
        quota, period = map(int, limit)
        return quota / period if quota > 0 and period > 0 else math.inf
    except ValueError:
        return math.inf


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
