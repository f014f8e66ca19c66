# SPDX-License-Identifier: Apache-2.0
"""The thread that creates and runs all sessions of ONNX Runtime.

A session that flushes denormal numbers to zero permanently changes the floating-point mode of the thread that creates
it. In the caller's thread, NumPy and Python would lose denormal numbers. ONNX Runtime sets the mode only for the first
session of a process, so all sessions share one thread. If the process has created a session of its own before, outputs
are the same but slower.
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
    """Runs `call(*arguments, **named)` in the thread of ONNX Runtime; returns its result or raises its error."""
    return _thread.submit(call, *arguments, **named).result()
