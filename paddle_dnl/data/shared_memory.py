# SPDX-License-Identifier: Apache-2.0
"""Whether /dev/shm is large enough for the batches of the data loading processes.

Docker gives a container 64 MB by default. When /dev/shm is full, the kernel kills the process that writes to it, so its size
is checked before the first batch.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from paddle_dnl.data.transforms.randomness import unchanged_generators
from paddle_dnl.log import logger
from paddle_dnl.startup.threads import local_ranks

import paddle

FOLDER = Path("/dev/shm")
_said: list[bool] = []
_IN_USE = 2  # batches that the training holds: the current one, and the previous one until the next arrives


def suffices(load: Callable[[], dict], num_workers: int) -> bool:
    """Whether shared memory is large enough for the batches of the workers; logs a warning if it is not.

    Paddle's loader holds two batches per worker; on a CPU also the batches in use are in shared memory.

    Args:
        load: loads one batch, whose size is taken for all. It runs in this process; the states of the random generators are
            restored afterwards.
        num_workers: number of worker processes.
    """
    if not FOLDER.is_dir():
        return True  # not Linux: left to Paddle
    state = paddle.get_rng_state()
    with unchanged_generators():
        size = _bytes(load())
    paddle.set_rng_state(state)
    wanted = (2 * num_workers + _IN_USE) * size * local_ranks()
    free = shutil.disk_usage(FOLDER).free
    if wanted <= free:
        return True
    if not _said:  # once per process, not for each evaluation
        _said.append(True)
        logger.warning(
            f"{FOLDER} has {free / 2**20:.1f} MB free, and with --num_workers {num_workers} up to {wanted / 2**20:.1f} MB of "
            "batches are there: they go through pipes instead, which is slower (docker run --shm-size gives a container more)"
        )
    return False


def _bytes(value) -> int:
    """Size of all arrays in a batch, in bytes."""
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    return getattr(value, "nbytes", 0)
