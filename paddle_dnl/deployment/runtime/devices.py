# SPDX-License-Identifier: Apache-2.0
"""Devices of Paddle Inference: which are available, and how to select them."""

import importlib.util
import os

from paddle_dnl.errors import UsageError

# Device files of the NVIDIA driver on Linux and in the Windows subsystem for Linux.
_GPU_FILES = ("/dev/nvidiactl", "/dev/dxg")


def default_device(backend: str) -> str:
    """`gpu` if there is one that the backend can use, else `cpu`, as in PaddleSeg's infer.py.

    Paddle is imported, which takes seconds, only on a machine with a GPU.

    Args:
        backend: `paddle`, `onnxruntime` and `openvino` (which run on the CPU unless told) or `auto`.
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
    """Refuses a device that this Paddle was built without.

    Raises:
        UsageError: says which build it is.
    """
    import paddle

    if device == "gpu":
        is_there = paddle.is_compiled_with_cuda()
    elif device == "xpu":
        is_there = paddle.is_compiled_with_xpu()
    else:
        is_there = device == "cpu" or device in paddle.device.get_all_custom_device_type()
    if not is_there:
        built = "with CUDA" if paddle.is_compiled_with_cuda() else "for CPU only"
        raise UsageError(f"--device {device}: this PaddlePaddle is built {built}; use --device cpu")


def gpu_of_process() -> int:
    """Index of the GPU of this process; under paddle.distributed.launch each rank has its own."""
    return int(os.environ.get("FLAGS_selected_gpus", "0").split(",")[0] or 0)


def enable_accelerator(config, device: str) -> None:
    """Sets an accelerator that is neither CPU nor NVIDIA GPU. Not run on any machine yet.

    Args:
        config: a `paddle.inference.Config`.
        device: `xpu` (Kunlun), `npu` (Ascend) or `mlu` (Cambricon), as PaddleSeg's infer.py names them.
    """
    if device == "xpu":
        config.enable_xpu()
    else:
        config.enable_custom_device(device)
