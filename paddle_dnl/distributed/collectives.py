# SPDX-License-Identifier: Apache-2.0
"""The collective operations that this package needs; no-ops in a single process.

Every wait stops when another rank has ended (`watch.OtherRankEnded`), and after `PADDLE_DNL_WAIT_SECONDS` with an error that
names the ranks which have not arrived.
"""

import json
import os
import pickle
import platform
import signal
import socket
import time

import paddle_dnl
from paddle_dnl.distributed import launched, watch
from paddle_dnl.distributed.ports import WAIT_VARIABLE, opening_error, wait_seconds, wait_until_open
from paddle_dnl.errors import DistributedError
from paddle_dnl.log import logger
from paddle_dnl.startup import child_processes

import numpy as np
import paddle
import paddle.distributed as dist

_QUIET_SECONDS = 20.0  # time for the launcher, which polls every few seconds, to end the ranks that print nothing
_CLOCK_SECONDS = 60.0  # largest tolerated difference between the clocks of two machines
_CHUNK_BYTES = 64 << 20  # per operation: each one has Gloo's time limit of 30 seconds


def rank() -> int:
    """Rank of this process, 0 in a single process."""
    return int(os.environ.get("PADDLE_TRAINER_ID", "0"))


def world_size() -> int:
    """Number of processes of the run."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))


def place_on_machine() -> tuple[str, int, int]:
    """The machine's name (empty in a single process), this process's index on the machine, and the number of ranks on it.

    Unlike `threads.local_ranks`, which assumes the worst case to divide resources, this function needs both variables of the
    launcher: ranks that wrongly take themselves for neighbours would wait for each other's files.
    """
    given = [os.environ.get(name, "") for name in ("PADDLE_LOCAL_RANK", "PADDLE_LOCAL_SIZE")]
    if not all(text.isdigit() for text in given) or int(given[1]) < 2 or world_size() == 1:
        return socket.gethostname() if world_size() > 1 else "", 0, 1
    place, count = map(int, given)
    first = rank() - place  # two containers may have the same name
    return f"{socket.gethostname()} (ranks {first} to {first + count - 1})", place, count


def is_main() -> bool:
    """Whether this process writes files and log lines."""
    return rank() == 0


# ---------------------------------------------------------------------------------------------- begin and end


def initialise() -> None:
    """Joins the process group that `paddle.distributed.launch` described; call `finish` at the end.

    From here on the end of any process ends all of them, with a line that names the one that ended first
    (`distributed/watch.py`).

    Raises:
        DistributedError: the processes do not find each other, are of different versions, or were launched for GPUs that
            this Paddle cannot use.
    """
    if os.environ.get("PADDLE_TRAINERS_NUM", "1") == "1" or watch.is_on():
        return
    launched.require_sound()
    if world_size() == 1:
        return
    wait_seconds()  # refuses a wrong value of the variable
    _require_gpus()
    store_host, _, port = _store_address().rpartition(":")
    if not dist.is_initialized():
        if port.isdigit() and not is_main():
            # Paddle would wait without a limit.
            wait_until_open(store_host, int(port), f"rank 0 at {store_host}:{port}")
        elif port.isdigit() and (error := opening_error(int(port))) is not None:  # Paddle would abort the process
            raise DistributedError(
                f"rank 0 cannot open port {port}, at which the ranks are to meet ({error.strerror}): end the program that has "
                "it (ss -ltnp), or start again, which takes another one"
            ) from error
        try:
            dist.init_parallel_env()
        except (RuntimeError, ValueError) as error:
            text = str(error).strip().splitlines()
            raise DistributedError(
                f"rank {rank()} cannot join the process group at {_store_address()} ({text[-1] if text else error}): "
                "rank 0 must run there and the port be free and open (--master and --rank of each node)"
            ) from error
    # When the launcher dies (SIGTERM kills Paddle's legacy launcher), its processes get SIGTERM, save and end; otherwise they
    # would go on unsupervised.
    child_processes.signal_on_parent_death(signal.SIGTERM)
    watch.start(rank(), world_size(), socket.gethostname(), store_host, _agree)
    _compare_machines(socket.gethostname())


def _require_gpus() -> None:
    """Refuses a launch for GPUs on a machine without them; Paddle itself fails only at the first exchange.

    Rank 0 reports it; the others wait until the launcher ends them, so that a job of many ranks prints one line.

    Raises:
        DistributedError: names the GPUs and the launch that works on a CPU.
    """
    has_gpus = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if has_gpus or "FLAGS_selected_gpus" not in os.environ or os.environ.get("PADDLE_DISTRI_BACKEND") == "gloo":
        return
    if not is_main():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(_QUIET_SECONDS)
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    wanted = f"GPUs (CUDA_VISIBLE_DEVICES={given})" if given else "GPUs"
    why = "sees none" if paddle.is_compiled_with_cuda() else "is built for CPU only"
    raise DistributedError(
        f"{world_size()} processes were launched for {wanted}, and this PaddlePaddle {why}; install paddlepaddle-gpu, or launch "
        f"on the CPU: unset CUDA_VISIBLE_DEVICES, and python -m paddle.distributed.launch --nproc_per_node {world_size()} "
        "--backend gloo ..."
    )


def _store_address() -> str:
    """`HOST:PORT` of the key-value store in rank 0, by Paddle's own rule."""
    if "MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ:
        return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    return os.environ.get("PADDLE_MASTER") or os.environ.get("PADDLE_TRAINER_ENDPOINTS", "?:?").split(",")[0]


def _agree(value):
    """Rank 0's value, exchanged through the store; usable before the watchdog runs."""
    # A second training in the same processes still finds the first one's value, so each has its own key.
    key = f"paddle_dnl/hub/{_meetings}"
    if is_main():
        _store().set(key, json.dumps(value))
    return json.loads(bytes(_store().get(key)).decode())


def _compare_machines(host: str) -> None:
    """Refuses machines with different versions, and warns of clocks that differ.

    Raises:
        DistributedError: names two machines and what differs.
    """
    versions = {"paddle_dnl": paddle_dnl.__version__, "paddle": paddle.__version__}
    versions["python"] = ".".join(platform.python_version_tuple()[:2])
    barrier("the start")  # so that the clocks are read at the same time
    everywhere = all_gather_object((host, versions, time.time()), "the comparison of versions")
    for other, there, _ in everywhere:
        different = [f"{name} {versions[name]} and {there[name]}" for name in versions if versions[name] != there[name]]
        if different:
            raise DistributedError(
                f"{host} and {other} have different versions ({', '.join(different)}); install the same"
            )
    first, last = (choose(everywhere, key=lambda entry: entry[2]) for choose in (min, max))
    if last[2] - first[2] > _CLOCK_SECONDS:
        logger.warning(
            f"the clocks of {first[0]} and {last[0]} differ by {last[2] - first[2]:.0f} s; times in their logs do not compare"
        )


def finish() -> None:
    """Waits for all processes and ends their supervision: from here on one may end before another."""
    barrier("the end")
    if world_size() > 1:
        # Rank 0 holds the store, so it ends only after all others have left the last barrier.
        name = f"paddle_dnl/left/{_meetings}"
        _add(name, 1)
        if is_main():
            _wait_for_all(name, "the end")
    watch.finish()


# ---------------------------------------------------------------------------------------------- waiting


_meetings = 0


def barrier(what: str) -> None:
    """Waits for all processes, also when one takes long to evaluate, to save or to read a dataset for the first time.

    Gloo's own operations give up after 30 seconds. This barrier counts arrivals in the key-value store of rank 0 instead; call
    it before such an operation where ranks may be further apart.

    Args:
        what: the step that follows, for messages.

    Raises:
        OtherRankEnded: another rank has ended.
        DistributedError: the time limit has passed; names the ranks that have not arrived.
    """
    global _meetings
    if world_size() == 1:
        return
    _meetings += 1
    name = f"paddle_dnl/barrier/{_meetings}"
    watch.reached(what)
    _add(f"{name}/{rank()}", 1)
    _add(name, 1)
    _wait_for_all(name, what)


def _store():
    return paddle.base.core.create_or_get_global_tcp_store()


def _add(name: str, amount: int) -> int:
    """Adds to a counter in the store and returns its new value."""
    watch.require_others()
    try:
        return _store().add(name, amount)
    except (RuntimeError, ValueError) as error:
        watch.require_others(seconds=5)
        raise DistributedError(f"rank {rank()}: the store in rank 0 does not answer ({error})") from error


def _wait_for_all(name: str, what: str) -> None:
    began, limit, pause = time.monotonic(), wait_seconds(), 0.001
    while _add(name, 0) < world_size():
        if time.monotonic() - began > limit:
            missing = [str(other) for other in range(world_size()) if not _add(f"{name}/{other}", 0)]
            raise DistributedError(
                f"rank {rank()} waited {limit:.0f} s at {what}, and these ranks have not arrived: "
                f"{', '.join(missing[:8]) or 'none'}{' ...' if len(missing) > 8 else ''} ({WAIT_VARIABLE} is the limit)"
            )
        time.sleep(pause)
        pause = min(2 * pause, 0.25)


class SharedCounter:
    """A counter of all processes together, kept in the key-value store of rank 0.

    It shows the progress of long work without a collective operation, for which processes would wait. Each process accesses the
    store at most every two seconds, so the total may lag behind.

    All processes must create it between the same two barriers.
    """

    _SECONDS = 2.0

    def __init__(self):
        self._key = f"paddle_dnl/count/{_meetings}"
        self._own = self._total = 0  # not added to the store yet; total of all as last read
        self._asked = time.monotonic()

    def add(self, amount: int) -> None:
        """Adds to it."""
        self._own += amount

    def total(self) -> int:
        """Sum over all processes."""
        if world_size() == 1:
            return self._own
        now = time.monotonic()
        if now - self._asked > self._SECONDS:
            self._asked = now
            self._total, self._own = _add(self._key, self._own), 0
        return self._total + self._own


# ---------------------------------------------------------------------------------------------- values


def all_reduce_sums(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The exact sum over processes of each integer array, in one exchange.

    Raises:
        TypeError: an array of floats, which would be truncated.
    """
    for array in arrays:
        if array.dtype.kind not in "iub":
            raise TypeError(f"all_reduce_sums: whole numbers only, got {array.dtype}")
    if world_size() == 1:
        return arrays
    tensor = paddle.to_tensor(np.concatenate([array.ravel() for array in arrays]).astype(np.int64))
    dist.all_reduce(tensor)
    parts = np.split(tensor.numpy(), np.cumsum([array.size for array in arrays])[:-1])
    return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]


def share_statistics(model: paddle.nn.Layer) -> None:
    """Copies rank 0's batch statistics and other buffers, which a checkpoint of rank 0 holds, to all processes."""
    if world_size() > 1:
        barrier("sharing batch statistics")
        for tensor in model.state_dict().values():
            if tensor.stop_gradient:  # Paddle counts batch statistics among the parameters
                dist.broadcast(tensor, src=0)


def all_gather_object(value, what: str = "an exchange") -> list:
    """The values of all processes, in rank order; `what` describes them in messages."""
    if world_size() == 1:
        return [value]
    barrier(what)
    values: list = []
    dist.all_gather_object(values, value)
    return values


def broadcast_object(value, what: str = "an exchange"):
    """Rank 0's value, returned on every process."""
    return all_gather_object(value, what)[0]


def broadcast_arrays(value, what: str):
    """Rank 0's value, which may hold large arrays, returned on every process; the argument of other ranks is ignored.

    Args:
        value: anything that can be pickled; its arrays are sent one by one, without a second copy.
        what: describes the value in messages.
    """
    if world_size() == 1:
        return value
    buffers: list = []
    if is_main():
        frame = pickle.dumps(value, protocol=5, buffer_callback=lambda found: buffers.append(found.raw()))
        broadcast_object((frame, [buffer.nbytes for buffer in buffers]), what)
    else:
        frame, sizes = broadcast_object(None, what)
        buffers = [bytearray(size) for size in sizes]
    for buffer in buffers:
        flat = np.frombuffer(buffer, np.uint8)
        for start in range(0, flat.size, _CHUNK_BYTES):
            chunk = flat[start : start + _CHUNK_BYTES]
            tensor = paddle.to_tensor(chunk)
            dist.broadcast(tensor, src=0)
            if not is_main():
                chunk[:] = tensor.numpy()
    return value if is_main() else pickle.loads(frame, buffers=buffers)
