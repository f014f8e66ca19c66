# SPDX-License-Identifier: Apache-2.0
"""Parallel map in worker processes. If one is killed, an error is raised; `multiprocessing.Pool` would wait for ever."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from paddle_dnl.errors import DataError
from paddle_dnl.startup import child_processes

_LAST_SECONDS = 5.0
_shared = None  # in a worker: the argument `shared`, inherited at the fork


def _start(parent: int, shared) -> None:
    global _shared
    _shared = shared
    child_processes.die_with(parent)
    child_processes.leave_signals_to_parent()


class _Bound:
    """`work` with its first argument bound to `_shared`; it is sent with each item and therefore small."""

    def __init__(self, work: Callable):
        self._work = work

    def __call__(self, item):
        return self._work(_shared, item)


def map_in_processes(
    work: Callable, shared, items: Sequence, num_workers: int, *, what: str, chunk: int = 8, name: Callable = str
) -> Iterator:
    """Yields `work(shared, item)` for each item, in order. With one worker, or without fork, it runs in this process.

    Args:
        work: a function at module level.
        shared: first argument of all calls; workers inherit it by the fork, because sending it with each item would be slow.
        items: sent to the workers.
        num_workers: number of worker processes.
        what: what the processes do, for the error message, for instance "that checks the files".
        chunk: number of items sent to a worker at a time.
        name: gives the name of an item for the error message.

    Raises:
        DataError: a worker was killed.
    """
    if num_workers <= 1 or "fork" not in multiprocessing.get_all_start_methods():
        yield from (work(shared, item) for item in items)
        return
    # If a process is killed, multiprocessing.Pool starts another one and waits for ever for the result of the killed one.
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
        # Also after a signal: waits briefly for items in progress, since they may be writing files.
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        until = time.monotonic() + _LAST_SECONDS
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
