"""The memory plan against a count by hand, and what it says."""

import logging

from paddle_dnl.engine import memory_plan
from paddle_dnl.engine.memory_plan import announce_evaluation, plan_evaluation

import numpy as np
import paddle
import pytest


class Net(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 8, 3, padding=1, bias_attr=False)

    def forward(self, x):
        return [self.conv(x)]


AROUND = 512 * 2**20  # what no shape tells


def test_by_hand():
    plan = plan_evaluation(Net(), 256, 512)
    pixels = 256 * 512
    # weights; input, output, nine copies of the input while convolving, and twice the logits
    assert plan.peak == AROUND + 4 * (3 * 8 * 9 + pixels * (3 + 8 + 9 * 3 + 2 * 8))
    pixels = 4096 * 8192  # here the copies would be 3.6 GB: the convolution goes in strips
    whole = plan_evaluation(Net(), 4096, 8192).peak
    assert whole == AROUND + 4 * (3 * 8 * 9 + pixels * (3 + 8 + 2 * 8)) + 32 * 2**20
    # in windows the whole picture's logits are still held twice
    slide = plan_evaluation(Net(), 4096, 8192, window=(256, 512)).peak
    assert slide == AROUND + 4 * (3 * 8 * 9 + 256 * 512 * (3 + 8 + 9 * 3) + pixels * 2 * 8)


def test_pictures_of_one_batch_are_held_together():
    one, four = (plan_evaluation(Net(), 256, 512, batch_size=n).peak for n in (1, 4))
    assert four - one == 4 * 3 * 256 * 512 * (3 + 8 + 2 * 8)  # one picture at a time is unfolded


@pytest.fixture
def said(monkeypatch, caplog):
    """The log, on a machine with 1 GB free."""
    monkeypatch.setattr(logging.getLogger("paddle_dnl"), "propagate", True)
    monkeypatch.setattr(memory_plan, "free_bytes", lambda: 10**9)
    with caplog.at_level(logging.INFO, "paddle_dnl"):
        yield caplog


class Pictures:
    """A dataset of one empty picture."""

    def __init__(self, height, width):
        self.shape = (3, height, width)

    def __getitem__(self, index):
        return {"img": np.zeros(self.shape, np.float32)}


def test_what_it_says(said):
    net = Net()
    net.train()
    announce_evaluation(net, Pictures(64, 64), {})
    assert "for 64x64 pixels at once; free: 1.0 GB" in said.text and "--is_slide" not in said.text
    assert net.training
    announce_evaluation(net, Pictures(2048, 4096), {})
    assert "--is_slide --crop_size" in said.text


def test_windows(said):
    announce_evaluation(Net(), Pictures(1024, 2048), {"is_slide": True, "crop_size": [512, 256], "stride": [512, 256]})
    assert "for 512x256 pixels" in said.text and "that is more" not in said.text
    announce_evaluation(Net(), Pictures(100, 100), {"is_slide": True, "crop_size": [512, 4096], "stride": [512, 256]})
    assert "for 100x100 pixels" in said.text
    announce_evaluation(Net(), Pictures(4096, 8192), {"is_slide": True, "crop_size": [8000, 4000], "stride": [99, 99]})
    assert "use a smaller --crop_size" in said.text


@pytest.mark.parametrize(("scales", "size"), [([0.5, 1.75], "896x448"), (0.5, "512x256"), (2.0, "1024x512")])
def test_the_largest_scale_counts(scales, size, said):
    announce_evaluation(Net(), Pictures(256, 512), {"aug_eval": True, "scales": scales})
    assert f"for {size} pixels" in said.text


def test_a_model_for_one_size_is_evaluated_without_an_estimate(said):
    class Fixed(Net):
        def forward(self, x):
            return [super().forward(x).reshape([1, 8, 64, 64])]

    announce_evaluation(Fixed(), Pictures(64, 64), {})
    assert "Memory: no estimate, Fixed refuses 128x128 pixels" in said.text


def test_free_memory_is_known_here():
    assert 1e6 < memory_plan.free_bytes() < 1e14
