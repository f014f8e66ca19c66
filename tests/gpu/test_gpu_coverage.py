# SPDX-License-Identifier: Apache-2.0
"""Operators of each family against the kernels that `paddlepaddle-gpu` registers (stored by tools/gpu_kernels.py)."""

import json
import re
from pathlib import Path

from paddle_dnl.gpu.coverage import FAMILIES, ONLY_ON_A_GPU, Kernel, kernels_of_all, launched_by
from paddle_dnl.gpu.kernels import gpu_kernels, launched_kernels
from paddle_dnl.nn import attention

import paddle
import pytest

ROOT = Path(__file__).resolve().parents[2]
STORED = json.loads((ROOT / "tests/data/gpu_kernels.json").read_text())
ROWS = re.findall(r"^\| `(\w+)` \|(.*)\|$", (ROOT / "docs/gpu_kernels.md").read_text(), re.M)


def test_launched_kernels_are_those_of_both_directions():
    x = paddle.ones([1, 1, 4, 4])
    x.stop_gradient = False
    found = launched_kernels(lambda: paddle.nn.functional.softmax(x).sum().backward())
    assert {"softmax", "softmax_grad", "sum", "sum_grad"} <= found and "conv2d" not in found


@pytest.mark.parametrize("family", FAMILIES)
def test_every_operator_of_a_family_has_its_gpu_kernels_and_is_on_the_page(family):
    launched = launched_by(family)
    assert {"bilinear_interp", "bilinear_interp_grad", "cross_entropy_with_softmax_grad", "conv2d_grad"} <= launched
    kernels = kernels_of_all(STORED, {family: launched})
    assert not [(kernel.name, kernel.fault) for kernel in kernels if kernel.fault]
    assert launched <= {name for name, _ in ROWS}, "run tools/gpu_kernels.py"


def test_attention_is_traced_in_tiles_as_well(monkeypatch):
    tiles, cut = [], attention._tiles
    monkeypatch.setattr(attention, "_tiles", lambda length, rows: tiles.append((length, rows)) or cut(length, rows))
    assert "conv2d" in launched_by("DNLNet, OpenMMLab") and len(tiles) == 3, "forward, backward, prediction"
    assert {length for length, _ in tiles} == {144} and {rows for _, rows in tiles} == {64}


def test_a_missing_kernel_is_a_fault():
    stored = {"kernels": {"a": ["float16"], "conv2d": ["float32"], "full": [], "mean": ["float32"]}}
    faults = {k.name: k.fault for k in kernels_of_all(stored, {"family": {"a", "conv2d", "full_", "mean", "other"}})}
    assert faults["other"] == "no GPU kernel" and faults["a"] == "no float32 kernel"
    assert faults["conv2d"] == "no float16 kernel", "autocast sends convolutions to half precision"
    assert faults["mean"] is None and faults["full_"] is None, "what is computed in float32, and what has no floats"


def test_the_page_names_the_release_and_no_fault():
    page = (ROOT / "docs/gpu_kernels.md").read_text()
    assert f"`paddlepaddle-gpu` {STORED['paddlepaddle-gpu']}" in page
    assert "Operators that lack a required kernel: none." in page
    assert {name for name, _ in ROWS} >= set(ONLY_ON_A_GPU)
    assert Kernel("momentum", STORED["kernels"]["momentum"], "input", []).fault is None


def test_a_build_without_cuda_says_what_to_install():
    if not paddle.is_compiled_with_cuda():
        with pytest.raises(RuntimeError, match="install paddlepaddle-gpu"):
            gpu_kernels()
