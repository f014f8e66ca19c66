# SPDX-License-Identifier: Apache-2.0
"""Between two log lines a float32 step reads nothing from the device, one in float16 a flag; ranks exchange gradients only."""

import json
import os
import subprocess
import sys
from pathlib import Path

from paddle_dnl.training import amp, loss_window
from paddle_dnl.training.data_parallel import unused_parameters

import counted_training
import numpy as np
import paddle
import pytest
import tiny_training


def _require_nothing_between_lines(steps: list[dict]) -> None:
    # The first step reads too, to learn how long a step takes.
    assert [step["read"] for step in steps] == [i in (1, 5, 10) for i in range(1, 11)]
    assert [step["counted"] for step in steps if not step["read"]] == [[]] * 7
    assert all(step["counted"] for step in steps if step["read"])


def test_no_reads_between_log_lines(tmp_path, monkeypatch):
    tiny_training.write_config(tmp_path)
    _require_nothing_between_lines(counted_training.run(tmp_path, monkeypatch.setattr, use_ema=True)[1])


def test_loss_scaling_reads_one_flag_per_step(tmp_path, monkeypatch, on_gpu):
    """Whether a gradient overflowed; the scaler's own arithmetic runs, on the CPU."""
    monkeypatch.setattr(amp, "_supports", lambda precision: True)
    tiny_training.write_config(tmp_path)
    trainer, steps = counted_training.run(tmp_path, monkeypatch.setattr, precision="fp16")
    assert trainer.scaler.skips and trainer.scaler.scale_now == amp.FIRST_SCALE
    assert [step["counted"] for step in steps if not step["read"]] == [["__bool__"]] * 7


@pytest.mark.parametrize("net", ["TinyNet", "HalfUsedNet"])
def test_two_processes_exchange_only_gradients(tmp_path, net):
    """And Paddle looks for unused parameters only where there are some."""
    tiny_training.write_config(tmp_path)
    program = Path(counted_training.__file__)
    words = [
        "-m",
        "paddle.distributed.launch",
        "--nproc_per_node",
        "2",
        "--backend",
        "gloo",
        "--log_dir",
        tmp_path / "log",
    ]
    words += [program, tmp_path, json.dumps({}), f"model.type={net}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PADDLE_")}
    done = subprocess.run(
        [sys.executable, *map(str, words)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in range(2):
        found = json.loads((tmp_path / f"counted_{rank}.json").read_text())
        _require_nothing_between_lines(found["steps"])
        assert found["find_unused"] is (net == "HalfUsedNet")


def test_unused_parameters():
    """They are found without a trace in the model: neither gradients nor statistics change."""
    model = counted_training.HalfUsedNet(3)
    model.norm = paddle.nn.BatchNorm2D(3)
    for name, parameter in model.named_parameters():
        parameter.stop_gradient = name == "aux.bias" or "mean" in name or "variance" in name
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    x = paddle.randn([2, 3, 8, 8])
    found = unused_parameters(model, lambda trial: sum(y.sum() for y in trial(trial.norm(x))).backward())
    assert found == ["left_out.bias", "left_out.weight"]
    assert all(parameter.grad is None for parameter in model.parameters())
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key], err_msg=key)


def test_finite_flag():
    """One number that is not finite, in any tensor of any kind, is found, and none is changed."""
    tensors = [paddle.randn([3, 4]), paddle.randn([5]).astype("float64"), paddle.to_tensor([1, 2])]
    before = [tensor.numpy().copy() for tensor in tensors]
    assert float(loss_window.all_finite(tensors)) == 1
    for tensor, values in zip(tensors, before, strict=True):
        np.testing.assert_array_equal(tensor.numpy(), values)
    for value in (np.nan, np.inf, -np.inf):
        assert float(loss_window.all_finite([tensors[0], paddle.to_tensor([0.0, value])])) == 0
    assert float(loss_window.all_finite([])) == 1


def test_a_bad_loss_between_log_lines_is_named_by_its_own_step(tmp_path):
    from paddle_dnl.errors import NonFiniteError

    # Step 7 is bad, the host reads at step 10; the weights are spoilt by then, and nothing newer than before is saved.
    with pytest.raises(NonFiniteError, match=r"iter 7: .*nan in the batch of .*image_.*Last good checkpoint: .*iter_5"):
        tiny_training.train(tmp_path, ["model.poison=7"], log_iters=5)
    assert [p.name for p in (tmp_path / "output").glob("iter_*")] == ["iter_5"]
