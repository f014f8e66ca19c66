# SPDX-License-Identifier: Apache-2.0
"""Between two log lines a float32 step reads nothing from the device and reduces no scalars over the ranks."""

from paddle_dnl.config import Config
from paddle_dnl.training import loss_window
from paddle_dnl.training.trainer import Trainer, TrainOptions

import numpy as np
import paddle
import pytest
import tiny_training


@pytest.fixture
def reads(monkeypatch):
    """How often the host read a tensor, by counting stubs."""
    found = []
    for name in ("numpy", "item", "__float__", "__bool__", "__int__", "__array__", "tolist"):
        original = getattr(paddle.Tensor, name)

        def counting(self, *args, _original=original, _name=name, **kwargs):
            found.append(_name)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(paddle.Tensor, name, counting)
    return found


def test_no_reads_between_log_lines(tmp_path, monkeypatch, reads):
    tiny_training.write_config(tmp_path)
    monkeypatch.setattr(loss_window, "_READ_SECONDS", 1e6)  # however slow the machine is
    per_step = []

    class Counting(Trainer):
        def _step(self, batches):
            before = len(reads)
            found = super()._step(batches)
            per_step.append((len(reads) - before, found is not None))
            return found

    options = TrainOptions(save_dir=str(tmp_path / "output"), seed=7, log_iters=5, save_interval=100, use_ema=True)
    Counting(Config(str(tmp_path / "config.yml")), options).run()
    # The first step reads too, to learn how long a step takes.
    assert [is_read for _, is_read in per_step] == [i in (1, 5, 10) for i in range(1, 11)]
    assert [count for count, is_read in per_step if not is_read] == [0] * 7
    assert all(count > 0 for count, is_read in per_step if is_read)


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
