# SPDX-License-Identifier: Apache-2.0
"""Whether /dev/shm has room for the batches that data loading processes hand over.

A container has 64 MB there unless it is told otherwise. When it is full the kernel kills the process that writes, so this is
found out before the first batch.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from paddle_dnl.data.transforms.randomness import unchanged_generators
from paddle_dnl.log import logger

import paddle

FOLDER = Path("/dev/shm")
_said: list[bool] = []
_IN_USE = 2  # batches that the training holds: of its step, and the one before it until the next has come


def suffices(load: Callable[[], dict], num_workers: int) -> bool:
    """Whether the batches of some processes go through shared memory; False, with a warning, where it is too small for them.

    Paddle's loader has two batches for each process under way, and those in use stay in shared memory on a CPU.

    Args:
        load: gives one of the batches, which stands for all. It is called in this process; random numbers that it draws are
            put back.
        num_workers: processes that load.
    """
    if not FOLDER.is_dir():
        return True  # not Linux: Paddle itself knows
    state = paddle.get_rng_state()
    with unchanged_generators():
        size = _bytes(load())
    paddle.set_rng_state(state)
    # Each process of this run on this machine has loading processes of its own; Paddle's launcher says how many there are.
    local_size = os.environ.get("PADDLE_LOCAL_SIZE", "")
    ranks = max(1, int(local_size)) if local_size.isdigit() else 1
    wanted = (2 * num_workers + _IN_USE) * size * ranks
    free = shutil.disk_usage(FOLDER).free
    if wanted <= free:
        return True
    if not _said:  # the loaders of all evaluations of a training would say it again
        _said.append(True)
        logger.warning(
            f"{FOLDER} has {free / 2**20:.1f} MB free, and with --num_workers {num_workers} up to {wanted / 2**20:.1f} MB of "
            "batches are there: they go through pipes instead, which is slower (docker run --shm-size gives a container more)"
        )
    return False


def _bytes(value) -> int:
    """Of all arrays in a batch."""
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    return getattr(value, "nbytes", 0)
