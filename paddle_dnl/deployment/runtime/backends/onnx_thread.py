# SPDX-License-Identifier: Apache-2.0
"""The thread in which all sessions of ONNX Runtime are made and run.

A session that takes denormal numbers as zero switches the processor's mode for the thread that makes it, and for good:
in the caller's thread all later arithmetic, NumPy's and Python's own, would lose its denormal numbers. ONNX Runtime does
so for the first session of a process only, so all of ours share one thread. A process whose own sessions came first gets
the same outputs, slower.
"""

import os
from concurrent.futures import ThreadPoolExecutor


def _start() -> None:
    global _thread
    _thread = ThreadPoolExecutor(1, "onnxruntime")


_start()
# A forked process does not inherit threads and starts its own.
os.register_at_fork(after_in_child=_start)


def in_onnx_thread(call, *arguments, **named):
    """`call(*arguments, **named)` in that thread: its result, or the error that it raised."""
    return _thread.submit(call, *arguments, **named).result()
