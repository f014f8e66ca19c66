# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime's treatment of denormal numbers stays in its own thread."""

import platform
import subprocess
import sys
from pathlib import Path

from paddle_dnl.deployment.runtime.backends.onnx_thread import in_onnx_thread

import pytest
from tiny_export import export_color_net
from tiny_onnx import color_net

# In a process of its own: ONNX Runtime sets the mode for the first session of a process only.
PROGRAM = """
import sys
import numpy as np
from paddle_dnl.deployment.runtime.backends.onnx_thread import in_onnx_thread
from paddle_dnl.deployment.runtime.predictor import Predictor

image = np.zeros((32, 64, 3), np.uint8)
Predictor(sys.argv[1], backend="onnxruntime").predict([image])
half = lambda: sys.float_info.min / 2
print(half() > 0, np.float32(1e-38) * np.float32(0.1) > 0, in_onnx_thread(half) == 0)
"""


def test_the_caller_keeps_denormal_numbers(tmp_path):
    color_net(export_color_net(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    caller, numpy, session = done.stdout.splitlines()[-1].split()
    assert (caller, numpy) == ("True", "True")
    if platform.machine() == "x86_64":  # elsewhere ONNX Runtime leaves them as they are
        assert session == "True"


def test_results_and_errors_come_back():
    assert in_onnx_thread(int, "11", base=2) == 3
    with pytest.raises(ValueError, match="invalid literal"):
        in_onnx_thread(int, "x")
