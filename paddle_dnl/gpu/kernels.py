# SPDX-License-Identifier: Apache-2.0
"""The kernels of Paddle that a piece of code launches, and those that a build of Paddle has for GPUs."""

import contextlib
import re
from collections.abc import Callable, Iterator
from unittest import mock

from paddle_dnl.training.amp import gpu_dtypes

import paddle
from paddle import profiler
from paddle.base import core

# How Paddle's profiler names the launch of a kernel: 2.6 and 3.x.
_LAUNCH = re.compile(r"(\w+) (?:compute|kernel launch)")


@contextlib.contextmanager
def choosing_as_on_a_gpu() -> Iterator[None]:
    """Code that asks for the current device hears of a GPU, so that a CPU runs the operators that a GPU would.

    Models must be built before: what is built inside gets `SyncBatchNorm`, which a CPU has no kernel for.
    """
    with mock.patch.object(paddle, "get_device", lambda: "gpu:0"):
        yield


def launched_kernels(function: Callable[[], object]) -> set[str]:
    """Names of the kernels, backward passes included, that Paddle launches while `function` runs; needs a CPU build."""
    recorder = profiler.Profiler(targets=[profiler.ProfilerTarget.CPU], on_trace_ready=lambda _: None)
    with recorder:
        function()
    found, nodes = set(), list(recorder.profiler_result.get_data().values())
    while nodes:
        node = nodes.pop()
        nodes += node.children_node
        launch = _LAUNCH.fullmatch(node.name)
        if launch:
            found.add(launch[1])
    return found


def gpu_kernels() -> dict[str, list[str]]:
    """Floating-point dtypes of each kernel that this build of Paddle registers for GPUs; needs no GPU.

    Raises:
        RuntimeError: a build without CUDA.
    """
    if not paddle.is_compiled_with_cuda():
        raise RuntimeError(
            "this build of Paddle has no CUDA kernels; install paddlepaddle-gpu, which needs no GPU for this"
        )
    found = {}
    for name, kernels in core._get_registered_phi_kernels("all").items():
        on_gpu = gpu_dtypes(kernels)
        if on_gpu and not name.endswith(
            ("_coo", "_csr", "_coo_grad", "_csr_grad", "_sr")
        ):  # sparse tensors do not occur
            found[name] = sorted(dtype for dtype in on_gpu if "float" in dtype)
    return found
