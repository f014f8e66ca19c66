"""The few collective operations that the engine needs, which are no-ops in a single process."""

import os

import numpy as np
import paddle
import paddle.distributed as dist


def rank() -> int:
    """This process's number, 0 in a single process."""
    return int(os.environ.get("PADDLE_TRAINER_ID", "0"))


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


def is_main() -> bool:
    """Whether this process writes files and log lines."""
    return rank() == 0


def initialise() -> None:
    """Joins the process group that `paddle.distributed.launch` described; call once per process."""
    if world_size() > 1 and not dist.is_initialized():
        dist.init_parallel_env()


def barrier() -> None:
    """Waits for all processes."""
    if world_size() > 1:
        dist.barrier()


def all_reduce_sum(array: np.ndarray) -> np.ndarray:
    """The sum over processes of an int64 array, exact."""
    if world_size() == 1:
        return array
    tensor = paddle.to_tensor(np.ascontiguousarray(array, dtype=np.int64))
    dist.all_reduce(tensor)
    return tensor.numpy()


def all_reduce_mean(values: list[float]) -> list[float]:
    """The mean over processes of each number, in float64; NaN and infinity pass through."""
    if world_size() == 1:
        return values
    tensor = paddle.to_tensor(np.asarray(values, dtype=np.float64))
    dist.all_reduce(tensor)
    return [float(total) / world_size() for total in tensor.numpy()]


def all_gather_object(value) -> list:
    """The values of all processes, in rank order."""
    if world_size() == 1:
        return [value]
    values: list = []
    dist.all_gather_object(values, value)
    return values


def broadcast_object(value):
    """Rank 0's value, on every process."""
    return all_gather_object(value)[0]
