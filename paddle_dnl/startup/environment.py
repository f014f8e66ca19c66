# SPDX-License-Identifier: Apache-2.0
"""Logs the environment of a run: versions, machine, device."""

import os
import platform
import sys

import paddle_dnl
from paddle_dnl.compat import paddleseg
from paddle_dnl.log import logger
from paddle_dnl.startup import cpu_kernels

import cv2
import numpy
import paddle


def describe() -> dict[str, str]:
    """Returns versions and machine by name."""
    found = {
        "platform": platform.platform(),
        "Python": sys.version.split()[0],
        "paddle_dnl": paddle_dnl.__version__,
        "PaddlePaddle": paddle.__version__,
        "PaddleSeg": paddleseg.version(),
        "NumPy": numpy.__version__,
        "OpenCV": cv2.__version__,
        "device": paddle.get_device(),
        "CPU threads": f"{os.environ.get('OMP_NUM_THREADS', '1')} of {os.cpu_count()}",
    }
    if cpu_kernels.VARIABLE in os.environ:
        found[cpu_kernels.VARIABLE] = os.environ[cpu_kernels.VARIABLE]
    if paddle.is_compiled_with_cuda():
        found["CUDA"] = str(paddle.version.cuda())
        found["cuDNN"] = str(paddle.version.cudnn())
        if paddle.device.cuda.device_count():
            found["GPU"] = paddle.device.cuda.get_device_name()
    return found


def log_environment(config) -> None:
    """Logs `describe()` and the resolved configuration."""
    lines = [f"{name}: {value}" for name, value in describe().items()]
    logger.info("Environment\n" + "\n".join(lines))
    logger.info(f"Configuration {config.path}\n{config.dump().rstrip()}")
