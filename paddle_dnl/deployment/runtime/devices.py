# SPDX-License-Identifier: Apache-2.0
"""Finds and selects the devices of Paddle Inference."""

import importlib.util
import os

from paddle_dnl.errors import UsageError

# Device files of the NVIDIA driver on Linux and in the Windows subsystem for Linux.
_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg")


def default_device(backend: str) -> str:
    """Returns `gpu` if the backend uses GPUs by default and there is one, else `cpu`, as in PaddleSeg's infer.py.

    Imports Paddle, which takes seconds, only on machines with a GPU.

    Args:
        backend: `paddle` or `auto`; `onnxruntime` and `openvino` use the CPU by default.
    """
    if (
        backend in ("onnxruntime", "openvino")
        or not any(map(os.path.exists, _GPU_FILES))
        or not importlib.util.find_spec("paddle")
    ):
        return "cpu"
    import paddle

    return "gpu" if paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() else "cpu"


def require_device(device: str) -> None:
    """Checks that the installed Paddle supports a device.

    Raises:
        UsageError: it does not; the message names the build.
    """
    import paddle

    if device == "gpu":
        is_supported = paddle.is_compiled_with_cuda()
    elif device == "xpu":
        is_supported = paddle.is_compiled_with_xpu()
    else:
        is_supported = device == "cpu" or device in paddle.device.get_all_custom_device_type()
    if not is_supported:
        built = "with CUDA" if paddle.is_compiled_with_cuda() else "for CPU only"
        raise UsageError(f"--device {device}: this PaddlePaddle is built {built}; use --device cpu")


def gpu_of_process() -> int:
    """Index of this process's GPU, which paddle.distributed.launch sets for each rank."""
    return int(os.environ.get("FLAGS_selected_gpus", "0").split(",")[0] or 0)


def enable_accelerator(config, device: str) -> None:
    """Selects an accelerator other than CPU and NVIDIA GPU. Not tested on such hardware.

    Args:
        config: a `paddle.inference.Config`.
        device: `xpu` (Kunlun), `npu` (Ascend) or `mlu` (Cambricon), as PaddleSeg's infer.py names them.
    """
    if device == "xpu":
        config.enable_xpu()
    else:
        config.enable_custom_device(device)
