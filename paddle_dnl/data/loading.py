# SPDX-License-Identifier: Apache-2.0
"""Batches from a dataset, in this process or in workers, with errors raised where the batch is used.

PaddlePaddle's own loader hangs when a sample raises in its reader thread; here a failing sample becomes a
value that crosses threads and processes and is raised where the batch is used.
"""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from paddle_dnl.data import shared_memory
from paddle_dnl.errors import DataError, PaddleDnlError, describe
from paddle_dnl.startup import child_processes

import cv2
import numpy as np
import paddle

_FAILURE = "failure"
_AHEAD = 2  # batches that a thread holds ready, or reads
_WORKER_KILLED = (
    "a data loading process was killed, as the system does when memory or shared memory (/dev/shm) runs out; give fewer "
    "--num_workers, or a container more shared memory (docker run --shm-size)"
)


class WorkerError(DataError):
    """A process that loads data was killed."""


# A transform's `exit()` ends a data loading process with status 0, and the training would miss a batch.
_FAILURES = (Exception, SystemExit)


def _failure(error: BaseException) -> dict:
    text = str(error) if isinstance(error, PaddleDnlError) else describe(error)
    return {_FAILURE: np.frombuffer(text.encode("utf-8", "replace") or b"?", np.uint8).copy()}


class _Guarded(paddle.io.Dataset):
    """A dataset that returns the exception of a failing sample as a value."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        try:
            return self.dataset[index]
        except _FAILURES as error:
            return _failure(error)


class _GuardedCollate:
    """Collation that returns the first failure in place of the batch."""

    def __init__(self, collate: Callable[[list[dict]], dict]):
        self.collate = collate

    def __call__(self, samples: list[dict]) -> dict:
        for sample in samples:
            if isinstance(sample, dict) and _FAILURE in sample:
                return sample
        try:
            return self.collate(samples)
        except _FAILURES as error:
            return _failure(error)


def _checked(batch: dict) -> dict:
    if _FAILURE in batch:
        raise DataError(np.asarray(batch[_FAILURE]).tobytes().decode("utf-8", "replace"))
    return batch


def _obey(parent: int) -> None:
    """Ends this process when its parent asks for it; signals to the whole process group are answered by the parent alone."""
    while signal.sigwaitinfo({signal.SIGTERM, signal.SIGINT}).si_pid != parent:
        pass
    os._exit(0)


def _start_worker(parent: int, worker: int) -> None:
    """Set-up of a data loading process, which ends with its training and not before.

    When the training is killed, Paddle's processes wait for ever to hand over their last batch. And a Ctrl-C or the launcher's
    SIGTERM goes to the whole process group, but the training finishes its step and saves, for which it needs the batch.
    """
    # One thread per process is enough: else each starts as many as the machine has cores, against all the others. OpenCV's
    # number for it is 0; with 1 it would end the threads that its parent had, which a forked process lacks, and crash.
    cv2.setNumThreads(0)
    if sys.platform == "linux":
        child_processes.die_with(parent)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        threading.Thread(target=_obey, args=(parent,), daemon=True).start()


def load_batches(
    dataset,
    batches: Iterable[list[int]],
    collate: Callable[[list[dict]], dict],
    num_workers: int = 0,
    read_ahead: bool = False,
) -> Iterator[dict]:
    """Yields `collate([dataset[i] for i in indices])` for each list of indices, in order.

    Args:
        dataset: indexed by the entries of `batches`.
        batches: lists of indices; with workers it must have a length.
        collate: samples to a dict of NumPy arrays and plain values.
        num_workers: processes that load; 0 loads here.
        read_ahead: without workers, load the next batches in a thread; only where loading draws nothing from the random
            generators of the process.

    Raises:
        DataError: a sample could not be read or does not fit its batch; names what is wrong.
        WorkerError: a process was killed.
    """
    guarded, join = _Guarded(dataset), _GuardedCollate(collate)

    def load(indices):
        return join([guarded[i] for i in indices])

    if num_workers > 0:
        loader = paddle.io.DataLoader(
            guarded,
            batch_sampler=batches,
            collate_fn=join,
            num_workers=num_workers,
            return_list=True,
            use_shared_memory=shared_memory.suffices(partial(load, next(iter(batches), [])), num_workers),
            worker_init_fn=partial(_start_worker, os.getpid()),
        )
        iterator = iter(loader)
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD"):
            # Paddle's handler would raise its error anywhere, in the middle of a save too; `next` looks after the processes.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            for batch in iterator:
                yield _checked(batch)
        except (RuntimeError, SystemError) as error:
            if not any(words in str(error) for words in ("DataLoader", "Blocking queue is killed")):
                raise
            raise WorkerError(_WORKER_KILLED) from error
        finally:
            # Ends worker processes now; the garbage collector would do it later.
            iterator._try_shutdown_all()
    elif read_ahead:
        thread = ThreadPoolExecutor(1, thread_name_prefix="read")
        try:
            coming: deque[Future] = deque()
            for indices in batches:
                coming.append(thread.submit(load, indices))
                if len(coming) > _AHEAD:
                    yield _checked(coming.popleft().result())
            while coming:
                yield _checked(coming.popleft().result())
        finally:
            thread.shutdown(wait=True, cancel_futures=True)
    else:
        for indices in batches:
            yield _checked(load(indices))


def stack_training(samples: list[dict]) -> dict:
    """`img [B, C, H, W]` float32, `label [B, H, W]`, `edge` if there is one, and mappings of arrays (`instances`).

    Raises:
        DataError: samples that differ in size.
    """
    shapes = {sample["img"].shape[1:] for sample in samples}
    if len(shapes) > 1:
        sizes = ", ".join(f"{shape[1]}x{shape[0]}" for shape in sorted(shapes))
        raise DataError(
            f"train_dataset.transforms: the samples of one batch differ in size ({sizes}); end with a crop to one size, "
            "for instance RandomPaddingCrop"
        )
    batch = {key: np.stack([s[key] for s in samples]) for key in ("img", "label", "edge") if key in samples[0]}
    # PaddleSeg's transform for mask classification adds its targets.
    for key, value in samples[0].items():
        if isinstance(value, dict):
            batch[key] = {name: np.stack([np.asarray(s[key][name]) for s in samples]) for name in value}
    return batch


def as_tensors(batch: dict) -> dict:
    """A batch of `stack_training` on the current device; labels and edges as int64. What workers have put there is not copied."""
    is_gpu = paddle.get_device().startswith("gpu")

    def on_device(value):
        if isinstance(value, paddle.Tensor):
            return value
        if not is_gpu:
            return paddle.to_tensor(value)
        # A GPU fetches it from page-locked memory while this process goes on. Paddle keeps the page-locked copy until the GPU
        # has it, and its kernels wait for that, as they are in the same stream. Not run on a GPU yet.
        return paddle.to_tensor(value, place=paddle.CUDAPinnedPlace()).cuda(blocking=False)

    batch = paddle.utils.map_structure(on_device, batch)
    return batch | {key: batch[key].astype("int64") for key in ("label", "edge") if key in batch}
