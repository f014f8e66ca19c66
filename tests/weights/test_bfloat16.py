# SPDX-License-Identifier: Apache-2.0
"""Safetensors in bfloat16, which NumPy lacks: read as float32, the numbers exactly."""

import json

from paddle_dnl.errors import CheckpointError
from paddle_dnl.weights.loading import read_params

import numpy as np
import pytest


def _write(path, dtype="BF16"):
    values = np.array([[1.5, -2.0, 3.140625], [0.0, 1e-38, 65536.0]], np.float32)
    bits = (values.view(np.uint32) >> 16).astype("<u2")
    plain = np.arange(3, dtype=np.float32)
    header = {
        "plain": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
        "wide": {"dtype": dtype, "shape": [2, 3], "data_offsets": [12, 24 if dtype == "BF16" else 18]},
    }
    text = json.dumps(header).encode()
    data = plain.tobytes() + (bits.tobytes() if dtype == "BF16" else bytes(6))
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return (bits.astype(np.uint32) << 16).view(np.float32), plain


def test_bfloat16_is_read_as_float32(tmp_path):
    wide, plain = _write(tmp_path / "a.safetensors")
    state = read_params(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(state["wide"], wide)
    np.testing.assert_array_equal(state["plain"], plain)
    assert state["wide"].dtype == np.float32


def test_other_types_are_one_line(tmp_path):
    _write(tmp_path / "a.safetensors", "F8_E4M3")
    with pytest.raises(CheckpointError, match="a.safetensors: not a valid safetensors file") as raised:
        read_params(tmp_path / "a.safetensors")
    assert "\n" not in str(raised.value)
