# SPDX-License-Identifier: Apache-2.0
"""Parallel map in processes; a killed process raises an error instead of blocking for ever."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from paddle_dnl.errors import DataError
from paddle_dnl.startup import child_processes

_LAST_SECONDS = 5.0
_shared = None  # in a process of a pool: what `shared` was at the fork


def _start(parent: int, shared) -> None:
    global _shared
    _shared = shared
    child_processes.die_with(parent)
    child_processes.leave_signals_to_parent()


class _Bound:
    """`work` without its first argument, small enough to send with each item."""

    def __init__(self, work: Callable):
        self._work = work

    def __call__(self, item):
        return self._work(_shared, item)


def map_in_processes(
    work: Callable, shared, items: Sequence, num_workers: int, *, what: str, chunk: int = 8, name: Callable = str
) -> Iterator:
    """Yields `work(shared, item)` for each item, in order; here when there is one process or the system cannot fork.

    Args:
        work: a function of a module.
        shared: for all calls; got by the fork, as sending it with each item would take long.
        items: sent to the processes.
        num_workers: processes.
        what: the process, for the error, for instance "that checks the files".
        chunk: items that a process gets at a time.
        name: how an item is called, for the error.

    Raises:
        DataError: a process was killed.
    """
    if num_workers <= 1 or "fork" not in multiprocessing.get_all_start_methods():
        yield from (work(shared, item) for item in items)
        return
    # multiprocessing.Pool would start another process and wait for ever for the result of the killed one.
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(num_workers, context, _start, (os.getpid(), shared))
    done = 0
    try:
        for result in pool.map(_Bound(work), items, chunksize=chunk):
            yield result
            done += 1
    except BrokenProcessPool as error:
        raise DataError(
            f"a process {what} was killed, as the system does when memory runs out ({done} of {len(items)} are done, "
            f"next {name(items[done])}); give fewer --num_workers"
        ) from error
    except BaseException:
        # Also for a signal: what was handed out is waited for shortly, since it may be writing.
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        until = time.monotonic() + _LAST_SECONDS
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
