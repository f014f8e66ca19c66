# SPDX-License-Identifier: Apache-2.0
"""Batches from a dataset, loaded in this process, in a thread or in worker processes.

PaddlePaddle's loader hangs when a sample raises an exception in its reader thread. Here the exception of a sample is
returned as a value, passes threads and processes, and is raised where the batch is used.
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
_AHEAD = 2  # batches that the thread of `read_ahead` has loaded or is loading
_WORKER_KILLED = (
    "a data loading process was killed, as the system does when memory or shared memory (/dev/shm) runs out; give fewer "
    "--num_workers, or a container more shared memory (docker run --shm-size)"
)


class WorkerError(DataError):
    """A data loading process was killed."""


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
    """Ends this process on SIGTERM or SIGINT from its parent; those sent to the whole process group are left to the parent."""
    while signal.sigwaitinfo({signal.SIGTERM, signal.SIGINT}).si_pid != parent:
        pass
    os._exit(0)


def _start_worker(parent: int, worker: int) -> None:
    """Set-up of a data loading process, which ends with its training, and not before.

    If the training is killed, Paddle's worker would wait for ever to deliver its last batch. On Ctrl-C and on the launcher's
    SIGTERM, which go to the whole process group, the worker must go on: the training finishes its step, which needs the
    batch, and saves.
    """
    # No threads: otherwise each worker starts one per core. 0 and not 1, with which OpenCV would try to end the threads of
    # the parent, which a forked process does not have, and crash.
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
        dataset: indexed by the elements of `batches`.
        batches: lists of indices; with workers it must have a length.
        collate: makes a dict of NumPy arrays and plain values of a list of samples.
        num_workers: number of worker processes; 0: load in this process.
        read_ahead: without workers, load the next batches in a thread. Only if loading does not use the random generators
            of the process.

    Raises:
        DataError: a sample could not be read, or does not fit its batch.
        WorkerError: a worker was killed.
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
            # Paddle's handler would raise its error at any time, also during a save; `next` checks the processes instead.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            for batch in iterator:
                yield _checked(batch)
        except (RuntimeError, SystemError) as error:
            if not any(words in str(error) for words in ("DataLoader", "Blocking queue is killed")):
                raise
            raise WorkerError(_WORKER_KILLED) from error
        finally:
            # Ends the worker processes now, not when the loader is garbage-collected.
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
    """Stacks samples: `img [B, C, H, W]` float32, `label [B, H, W]`, `edge` if present, and mappings of arrays (`instances`).

    Raises:
        DataError: the samples differ in size.
    """
    shapes = {sample["img"].shape[1:] for sample in samples}
    if len(shapes) > 1:
        sizes = ", ".join(f"{shape[1]}x{shape[0]}" for shape in sorted(shapes))
        raise DataError(
            f"train_dataset.transforms: the samples of one batch differ in size ({sizes}); end with a crop to one size, "
            "for instance RandomPaddingCrop"
        )
    batch = {key: np.stack([s[key] for s in samples]) for key in ("img", "label", "edge") if key in samples[0]}
    # PaddleSeg's transform for mask classification adds `instances`.
    for key, value in samples[0].items():
        if isinstance(value, dict):
            batch[key] = {name: np.stack([np.asarray(s[key][name]) for s in samples]) for name in value}
    return batch


def as_tensors(batch: dict) -> dict:
    """A batch of `stack_training` as tensors on the current device; labels and edges as int64. Tensors are not copied again."""
    is_gpu = paddle.get_device().startswith("gpu")

    def on_device(value):
        if isinstance(value, paddle.Tensor):
            return value
        if not is_gpu:
            return paddle.to_tensor(value)
        # To a GPU asynchronously from pinned memory. Paddle keeps the pinned copy until the transfer is done, and its kernels
        # run after it in the same stream. Only run on CPUs so far, where the copy is synchronous.
        return paddle.to_tensor(value, place=paddle.CUDAPinnedPlace()).cuda(blocking=False)

    batch = paddle.utils.map_structure(on_device, batch)
    return batch | {key: batch[key].astype("int64") for key in ("label", "edge") if key in batch}
