# SPDX-License-Identifier: Apache-2.0
"""The memory plan against a count by hand, and what it says."""

import logging

from paddle_dnl.nn.cpu.concat_conv import ConcatConvBNReLU
from paddle_dnl.nn.cpu.row_strips import Conv2D
from paddle_dnl.nn.disentangled_nonlocal import DisentangledNonLocal2D
from paddle_dnl.profile import memory_plan
from paddle_dnl.profile.memory_plan import Sizes, announce_evaluation, announce_export, plan_evaluation

import numpy as np
import paddle
import pytest


class Net(paddle.nn.Layer):
    def __init__(self, plain=False):
        super().__init__()
        self.conv = (paddle.nn.Conv2D if plain else Conv2D)(3, 8, 3, padding=1, bias_attr=False)

    def forward(self, x):
        return [self.conv(x)]


AROUND = 512 * 2**20  # what no shape tells


def _peak(height, width, plain=False, **sizes) -> int:
    """Of the net below, without what no shape tells."""
    return plan_evaluation(Net(plain), Sizes((height, width), **sizes)).peak - AROUND


def test_by_hand():
    pixels = 256 * 512
    # weights; input, output, nine copies of the input while convolving, and twice the logits
    assert _peak(256, 512) == 4 * (3 * 8 * 9 + pixels * (3 + 8 + 9 * 3 + 2 * 8))
    pixels = 4096 * 8192  # here the copies would be 3.6 GB: the convolution goes in strips
    assert _peak(4096, 8192) == 4 * (3 * 8 * 9 + pixels * (3 + 8 + 2 * 8)) + 32 * 2**20
    # or, with more channels, by Winograd's algorithm, which holds 16 matrices of weights
    net = Net()
    net.conv = Conv2D(64, 64, 3, padding=1, bias_attr=False)
    peak = plan_evaluation(net, Sizes((4096, 8192), channels=64)).peak - AROUND
    assert peak == 4 * (64 * 64 * (9 + 16) + pixels * (64 + 64 + 2 * 64)) + 64 * 2**20
    # but for an exported graph, and for Paddle's own layer
    whole = 4 * (3 * 8 * 9 + pixels * (3 + 8 + 9 * 3 + 2 * 8))
    assert _peak(4096, 8192, strips=False) == whole
    assert _peak(4096, 8192, plain=True) == whole
    # in windows the whole picture's logits are still held twice
    slide = 4 * (3 * 8 * 9 + 256 * 512 * (3 + 8 + 9 * 3) + pixels * 2 * 8)
    assert _peak(4096, 8192, window=(256, 512)) == slide


def test_pictures_of_one_batch_are_held_together_and_restored_one_by_one():
    one, four = (_peak(256, 512, batch_size=n) for n in (1, 4))
    assert four - one == 4 * 3 * 256 * 512 * (3 + 8 + 2 * 8)  # one picture at a time is unfolded
    restored = _peak(256, 512, original=(1024, 512))
    assert restored - one == 4 * 3 * 256 * 512 * 2 * 8
    assert _peak(256, 512, batch_size=4, original=(1024, 512)) == four


@pytest.mark.parametrize(
    ("attention", "mode", "per_map"),
    [
        ("plain", "embedded_gaussian", 4 * 32768 * 32768),
        ("auto", "embedded_gaussian", 4 * 256 * 32768),
        ("streaming", "gaussian", 4 * 256 * 32768),
        ("plain", "dot_product", 0),  # linear
    ],
)
def test_the_attention_map_counts(attention, mode, per_map):
    block = DisentangledNonLocal2D(16, mode=mode, attention=attention)

    class Attending(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.block = block

        def forward(self, x):
            return [self.block(paddle.nn.functional.avg_pool2d(x, 8).tile([1, 16, 1, 1]))]

    plan = plan_evaluation(Attending(), Sizes((1024, 2048), channels=1, copies=0))
    weights = sum(p.size for p in block.parameters())
    map_and_features = per_map + 4 * 2 * 16 * 32768
    assert plan.peak - AROUND - 4 * weights == pytest.approx(map_and_features, rel=0.01, abs=1e6)


def test_a_concatenation_that_is_not_made_does_not_count(monkeypatch):
    class Joining(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv = ConcatConvBNReLU(6, 8, 3, bias_attr=False)

        def forward(self, x):
            return [self.conv([x, x])]

    concatenated, original = [], paddle.concat
    monkeypatch.setattr(paddle, "concat", lambda *args, **kw: concatenated.append(1) or original(*args, **kw))
    plan = plan_evaluation(Joining(), Sizes((4096, 8192), copies=0))
    weights, pixels = 4 * (6 * 8 * 9 + 4 * 8), 4096 * 8192
    assert plan.peak - AROUND == weights + 4 * pixels * (2 * 3 + 8) + 32 * 2**20
    assert not concatenated


@pytest.fixture
def said(monkeypatch, caplog):
    """The log, on a machine with 1 GB free."""
    monkeypatch.setattr(memory_plan, "free_bytes", lambda: 10**9)
    with caplog.at_level(logging.INFO, "paddle_dnl"):
        yield caplog


class Pictures:
    """A dataset of one empty picture, which was of another size before."""

    def __init__(self, height, width, original=None):
        self.shape, self.original = (3, height, width), original

    def __getitem__(self, index):
        back = [("resize", self.original), ("padding", (1, 1))] if self.original else []
        return {"img": np.zeros(self.shape, np.float32), "trans_info": back}


def test_what_it_says(said):
    net = Net()
    net.train()
    announce_evaluation(net, Pictures(64, 64), {})
    assert "for 64x64 pixels at once; free: 1.0 GB" in said.text and "--is_slide" not in said.text
    assert net.training
    announce_evaluation(net, Pictures(64, 64, original=(2048, 4096)), {})
    assert "that is more than what is free; use --is_slide --crop_size" in said.text


def test_before_an_export(said):
    announce_export(Net(), [1, 3, 64, 32])
    assert "for 32x64 pixels" in said.text and "that is more" not in said.text
    announce_export(Net(), [4, 3, 2048, 1024])
    assert "that is more than what is free; use a smaller --input_shape" in said.text


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
