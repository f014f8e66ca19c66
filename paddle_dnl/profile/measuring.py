# SPDX-License-Identifier: Apache-2.0
"""Helpers of measurements: seconds of repeated runs, memory of this process, name of the machine."""

import importlib.util
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from paddle_dnl.startup.cpu_kernels import processor


def seconds_of_runs(run: Callable[[], object], *, warmup: int, repeats: int) -> list[float]:
    """Seconds of each of `repeats` calls, after `warmup` calls that are not timed."""
    for _ in range(warmup):
        run()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return seconds


def peak_bytes() -> int:
    """The most memory this process has had, since its start or since the system was told to count anew; 0 where unknown."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    # Kilobytes, but bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident_bytes() -> int:
    """This process's memory now; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def load_average() -> float | None:
    """Programs that ran or waited to run, on average over the last minute; None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows
        return None


def processor_name() -> str:
    """The processor's name, or its kind where the system tells no more."""
    return processor().get("model name", platform.machine())


def machine() -> str:
    """Processor, cores and versions, in one line."""
    found = [processor_name(), f"{os.cpu_count()} cores", f"Python {platform.python_version()}"]
    for name, module in (("Paddle", "paddle"), ("ONNX Runtime", "onnxruntime"), ("OpenVINO", "openvino")):
        if importlib.util.find_spec(module):
            found.append(f"{name} {importlib.import_module(module).__version__}")
    return ", ".join(found)
