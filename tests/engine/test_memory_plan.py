"""The memory plan against a count by hand, and what it says."""

import logging

from paddle_dnl.engine import memory_plan
from paddle_dnl.engine.memory_plan import announce, plan_evaluation

import paddle


class Net(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 8, 3, padding=1, bias_attr=False)

    def forward(self, x):
        return [self.conv(x)]


def test_by_hand():
    plan = plan_evaluation(Net(), 256, 512)
    pixels = 256 * 512
    # weights; input, output, nine copies of the input while convolving, and twice the logits
    assert plan.peak == 4 * (3 * 8 * 9 + pixels * (3 + 8 + 9 * 3 + 2 * 8))
    pixels = 4096 * 8192  # here the copies would be 3.6 GB: the convolution goes in strips
    assert plan_evaluation(Net(), 4096, 8192).peak == 4 * (3 * 8 * 9 + pixels * (3 + 8 + 2 * 8)) + 32 * 2**20


def test_what_it_says(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("paddle_dnl"), "propagate", True)
    monkeypatch.setattr(memory_plan, "free_bytes", lambda: 10**9)
    with caplog.at_level(logging.INFO, "paddle_dnl"):
        announce(Net(), 64, 64, False)
        assert "free: 1.0 GB" in caplog.text and "--is_slide" not in caplog.text
        announce(Net(), 4096, 8192, False)
        assert "--is_slide --crop_size" in caplog.text
    net = Net()
    net.train()
    announce(net, 64, 64, True)
    assert net.training


def test_free_memory_is_known_here():
    assert 1e6 < memory_plan.free_bytes() < 1e14
