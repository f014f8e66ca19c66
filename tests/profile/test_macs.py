# SPDX-License-Identifier: Apache-2.0
"""The multiply-accumulate counter against hand counts and scaling laws."""

from paddle_dnl.cli.analysis.count_macs import main
from paddle_dnl.errors import ExportError, UsageError
from paddle_dnl.models.backbones.dgmn2 import DGMN2_Tiny
from paddle_dnl.models.dnlnet import DNLNet
from paddle_dnl.nn.dgmn2_attention import DGMN2Attention
from paddle_dnl.nn.disentangled_nonlocal import DisentangledNonLocal2D
from paddle_dnl.nn.dynamic_filter import DynamicFilter
from paddle_dnl.profile.macs import count_macs, count_parameters
from paddle_dnl.registry import build

import paddle
import pytest
from paddle import nn


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2D(3, 8, 3, stride=2, padding=1), [2, 3, 8, 6], 2 * 8 * 4 * 3 * 3 * 9),
        (nn.Conv2D(8, 8, 3, padding=2, dilation=2, groups=4), [1, 8, 5, 5], 8 * 25 * 2 * 9),
        (nn.Conv2DTranspose(4, 6, 2, stride=2), [1, 4, 3, 3], 4 * 9 * 6 * 4),
        (nn.Linear(5, 7), [2, 3, 5], 2 * 3 * 5 * 7),
        (nn.Sequential(nn.Conv2D(3, 4, 1), nn.BatchNorm2D(4), nn.ReLU()), [1, 3, 2, 2], 4 * 4 * 3),
    ],
)
def test_plain_layers(layer, shape, expected):
    assert count_macs(layer, shape) == expected


# 16 channels, 8 inner, a 4 x 6 map: 24 positions.
N, C, D = 24, 16, 8
PROJECTIONS = N * C * (3 * D + 1) + N * D * C  # g, theta, phi, conv_mask, conv_out
UNARY = N * D


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, PROJECTIONS + 2 * N * N * D + UNARY),
        ({"mode": "gaussian"}, PROJECTIONS - 2 * N * C * D + N * N * (C + D) + UNARY),
        ({"mode": "dot_product"}, PROJECTIONS + 2 * N * D * D + UNARY),
        ({"mode": "concatenation"}, PROJECTIONS + 2 * N * D + N * N * D + UNARY),
        ({"unary": False}, PROJECTIONS - N * C + 2 * N * N * D),
        ({"pairwise": False}, PROJECTIONS - 2 * N * C * D + UNARY),
        # a quarter of the positions in g, phi, conv_mask, keys and mask
        ({"sub_sample": True}, 2 * N * C * D + 6 * C * (2 * D + 1) + 2 * N * 6 * D + 6 * D),
    ],
)
def test_nonlocal_block_by_hand(options, expected):
    assert count_macs(DisentangledNonLocal2D(C, **options), [1, C, 4, 6]) == expected
    assert count_macs(DisentangledNonLocal2D(C, **options), [3, C, 4, 6]) == 3 * expected


@pytest.mark.parametrize(("mode", "growth"), [("embedded_gaussian", 16), ("dot_product", 4)])
def test_pairwise_part_grows_with_the_square_of_the_positions(mode, growth):
    def pairwise(size):
        both = count_macs(DisentangledNonLocal2D(C, mode=mode), [1, C, size, size])
        unary = count_macs(DisentangledNonLocal2D(C, mode=mode, pairwise=False), [1, C, size, size])
        return both - unary - 2 * size * size * C * D  # without theta and phi

    assert pairwise(16) == growth * pairwise(8)


def test_tiled_attention_counts_like_plain_and_costs_nothing():
    # 256 x 512 positions squared are 1.7e10 weights: computing them would take minutes and 64 GiB.
    block, n = DisentangledNonLocal2D(4), 256 * 512
    assert count_macs(block, [1, 4, 256, 512]) == n * 4 * (3 * 2 + 1) + n * 2 * 4 + 2 * n * n * 2 + n * 2


@pytest.mark.parametrize("k", [1, 3, 4])
def test_dynamic_filter_by_hand(k):
    generated = k * k * 6 * 4
    assert count_macs(DynamicFilter(k, False, 6, 4), [2, 6, 8, 5]) == 2 * (generated + 40 * 6 * 4 + k * k * 4 * 40)


def test_dgmn2_attention_by_hand():
    class OnMap(nn.Layer):
        def __init__(self):
            super().__init__()
            self.attention = DGMN2Attention(8, 2, (4, 4))

        def forward(self, x):
            return self.attention(x, 4, 5)

    per_token = 4 * 8 * 8 + 8 * 18  # q, k, v, output; offsets (4 -> 18 for each of two heads)
    per_token += 2 * 9 * 8 + 2 * 9 * 8  # logits and sum; rows and columns of the position term
    per_token += 2 * 4 * 9 * 8  # keys and values sampled between four pixels
    assert count_macs(OnMap(), [3, 20, 8]) == 3 * 20 * per_token


def test_convolution_of_a_concatenation_is_counted_and_the_model_stays_as_it_was():
    def net(**options):
        backbone = build({"type": "ResNet18_vd"}, "backbone")
        return DNLNet(num_classes=5, backbone=backbone, enable_auxiliary_loss=False, **options)

    paddle.seed(0)
    model = net()
    model.train()
    model.backbone.eval()
    forwards = [layer.forward for layer in model.sublayers(include_self=True)]
    with_concat = count_macs(model, [1, 3, 64, 64])
    assert model.training and not model.backbone.training and model.head.training
    assert [layer.forward for layer in model.sublayers(include_self=True)] == forwards
    assert not any(layer._forward_post_hooks for layer in model.sublayers(include_self=True))
    without = count_macs(net(concat_input=False), [1, 3, 64, 64])
    channels_in, channels_out = model.head.conv_cat._conv.weight.shape[1::-1]
    assert with_concat - without == 8 * 8 * channels_in * channels_out * 9
    assert model(paddle.rand([2, 3, 64, 64]))[0].shape == [2, 5, 64, 64]


def test_parameters_leave_out_statistics_and_frozen_ones():
    model = nn.Sequential(nn.Conv2D(3, 4, 1), nn.BatchNorm2D(4))
    assert count_parameters(model) == 12 + 4 + 8
    model[0].bias.stop_gradient = True
    assert count_parameters(model) == 12 + 8


def test_bad_shapes_are_named():
    with pytest.raises(UsageError, match="0"):
        count_macs(nn.Linear(3, 3), [0, 3])
    with pytest.raises(ExportError, match=r"Flatten.*\[4\]"):
        count_macs(nn.Flatten(5, 7), [4])
    with pytest.raises(UsageError, match=r"input_shape \[1, 5, 8, 8\]: .* takes 3 channels and gets 5"):
        count_macs(nn.Sequential(nn.Conv2D(3, 4, 3)), [1, 5, 8, 8])
    with pytest.raises(UsageError, match=r"^input_shape \[1, 5, 64, 64\]: a convolution of DNLNet takes 3 channels"):
        main(["--config", "dnlnet_resnet50_os8_cityscapes_1024x512_80k", "--input_shape", *"1 5 64 64".split()])


def test_command_line(capsys):
    config = "configs/dgmn2/fpn_dgmn2_tiny_cityscapes_769x769_40k.yml"
    assert main(["--config", config, "--input_shape", "1", "3", "96", "96"]) == 0
    out = capsys.readouterr().out
    assert "parameters: 15.84 M" in out and "multiply-accumulates at 1x3x96x96: " in out


def test_backbone_is_linear_in_the_image():
    small, large = (count_macs(DGMN2_Tiny(), [1, 3, size, size]) for size in (64, 128))
    assert large == 4 * small
