"""The few collective operations that the engine needs, which are no-ops in a single process."""

import atexit
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


_watcher: subprocess.Popen | None = None


def initialise() -> None:
    """Joins the process group that `paddle.distributed.launch` described; `finish` must follow when all is done.

    From here on the end of any process ends all of them, with a line that names the one (`distributed/watchdog.py`).
    """
    if world_size() > 1 and not dist.is_initialized():
        dist.init_parallel_env()
    if world_size() > 1 and _watcher is None:
        _end_with_launcher()
        _start_watcher()


def _end_with_launcher() -> None:
    """A launcher that dies, as that for gloo does of a SIGTERM, asks its processes to save and end.

    Else they would go on without it, with nobody to see their end.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM, 0, 0, 0)


def _start_watcher() -> None:
    global _watcher
    host = f"{socket.gethostname()} {os.stat('/proc/self/ns/pid').st_ino if os.path.exists('/proc/self/ns/pid') else 0}"
    folder = tempfile.mkdtemp(prefix="paddle_dnl_ranks_")
    everywhere = all_gather_object((host, folder))
    shared = next(there for name, there in everywhere if name == host)  # of the first rank on this machine
    if shared != folder:
        os.rmdir(folder)
    program = str(Path(__file__).with_name("watchdog.py"))
    words = [
        sys.executable,
        "-I",
        "-S",
        program,
        shared,
        str(rank()),
        str(os.getpid()),
        "owner" if shared == folder else "-",
    ]
    _watcher = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    # Data loading processes are forked later; with a copy of the pipe they would hide the end of this process.
    os.register_at_fork(after_in_child=_watcher.stdin.close)
    atexit.register(_tell_normal_end)


def _tell_normal_end() -> None:
    """For a program that ends without `finish`; one that ends by an exception says nothing and is found."""
    if not hasattr(sys, "last_type"):
        _tell("done")


def finish() -> None:
    """Waits for all processes and ends the watch over them: from here on one may end before another."""
    global _watcher
    barrier()
    if world_size() > 1:
        # The store lives in rank 0, which must not end while another one still asks whether all have arrived.
        name = f"paddle_dnl/left/{_meetings}"
        _store().add(name, 1)
        if is_main():
            _wait_for_all(name)
    if _watcher is not None:
        _tell("done")
        _watcher.stdin.close()
        _watcher.wait()
        _watcher = None


def report_failure(text: str) -> None:
    """Tells the other processes why this one is about to end."""
    _tell("failed " + " ".join(text.split()))


def _tell(line: str) -> None:
    if _watcher is not None:
        with contextlib.suppress(OSError, ValueError):
            os.write(_watcher.stdin.fileno(), (line + "\n").encode("utf-8", "replace"))


_meetings = 0


def barrier() -> None:
    """Waits for all processes, however long one takes: to evaluate, to save, to read a dataset for the first time.

    Gloo's own operations give up after 30 seconds, so this one, which is to come before them where ranks may be apart,
    counts arrivals in the store through which the processes found each other. Who waits for a process that has ended is
    ended itself (`distributed/watchdog.py`).
    """
    global _meetings
    if world_size() == 1:
        return
    _meetings += 1
    name = f"paddle_dnl/barrier/{_meetings}"
    _store().add(name, 1)
    _wait_for_all(name)


def _store():
    return paddle.base.core.create_or_get_global_tcp_store()


def _wait_for_all(name: str) -> None:
    pause = 0.001
    while _store().add(name, 0) < world_size():
        time.sleep(pause)
        pause = min(2 * pause, 0.25)


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


def share_statistics(model: paddle.nn.Layer) -> None:
    """Gives all processes rank 0's batch statistics and all else that is not learnt: those that a checkpoint holds."""
    if world_size() > 1:
        for tensor in model.state_dict().values():
            if tensor.stop_gradient:  # Paddle counts batch statistics among the parameters
                dist.broadcast(tensor, src=0)


def all_gather_object(value) -> list:
    """The values of all processes, in rank order."""
    if world_size() == 1:
        return [value]
    barrier()
    values: list = []
    dist.all_gather_object(values, value)
    return values


def broadcast_object(value):
    """Rank 0's value, on every process."""
    return all_gather_object(value)[0]
