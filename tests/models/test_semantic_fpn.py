# SPDX-License-Identifier: Apache-2.0
"""Semantic FPN: pyramid and head against sums written in NumPy; sizes; what is refused. Values: tests/golden."""

from paddle_dnl.errors import ConfigError
from paddle_dnl.models.backbones.dgmn2 import DGMN2_Tiny
from paddle_dnl.models.backbones.resnet import ResNet18
from paddle_dnl.models.semantic_fpn import FPN, FPNHead, SemanticFPN, resize_nearest

import numpy as np
import paddle
import pytest
from paddle import nn


@pytest.mark.parametrize("old, new", [((7, 9), (13, 17)), ((3, 4), (5, 7)), ((25, 25), (49, 49)), ((5, 6), (5, 6))])
def test_nearest_takes_the_pixel_that_torch_takes(old, new):
    x = np.random.default_rng(0).normal(size=(2, 3, *old)).astype("float32")
    rows, columns = ([i * o // n for i in range(n)] for o, n in zip(old, new, strict=True))
    expected = x[:, :, rows][:, :, :, columns]
    np.testing.assert_array_equal(resize_nearest(paddle.to_tensor(x), list(new)).numpy(), expected)


def _conv1x1(conv, x):
    return np.einsum("oc,bchw->bohw", conv.weight.numpy()[:, :, 0, 0], x) + conv.bias.numpy()[:, None, None]


def test_pyramid_sums_from_coarse_to_fine():
    """The 3x3 convolutions are made to pass their input on, so that the sums are seen."""
    channels = [4, 5, 6, 7]
    fpn = FPN(channels, 8)
    for module in fpn.fpn_convs:
        weight = np.zeros([8, 8, 3, 3], "float32")
        weight[range(8), range(8), 1, 1] = 1
        module.conv.weight.set_value(weight)
    sizes = [(17, 25), (9, 13), (5, 7), (3, 4)]
    rng = np.random.default_rng(0)
    feats = [rng.normal(size=(1, c, *s)).astype("float32") for c, s in zip(channels, sizes, strict=True)]
    expected = [_conv1x1(m.conv, x) for m, x in zip(fpn.lateral_convs, feats, strict=True)]
    for i in (3, 2, 1):
        (h, w), (height, width) = sizes[i], sizes[i - 1]
        rows, columns = np.arange(height) * h // height, np.arange(width) * w // width
        expected[i - 1] = expected[i - 1] + expected[i][:, :, rows][:, :, :, columns]
    with paddle.no_grad():
        found = fpn([paddle.to_tensor(x) for x in feats])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b, atol=1e-5)


def test_head_has_the_published_layers():
    """Level 0: one convolution at its size; level i: i times convolution and doubling."""
    head = FPNHead(256, 4, 128, 19, 0.1, True)
    names = {name for name, _ in head.named_parameters() if name.endswith("conv.weight")}
    assert names == {
        f"scale_heads.{i}.{j}.conv.weight" for i, j in ((0, 0), (1, 0), (2, 0), (2, 2), (3, 0), (3, 2), (3, 4))
    }
    sizes = []
    for layer in head.sublayers():
        if isinstance(layer, nn.Conv2D):
            layer.register_forward_post_hook(lambda _, __, out: sizes.append(out.shape[2:]))
    head.eval()
    with paddle.no_grad():
        head([paddle.randn([1, 256, *s]) for s in ((17, 25), (9, 13), (5, 7), (3, 4))])
    assert sizes == [[17, 25], [9, 13], [5, 7], [10, 14], [3, 4], [6, 8], [12, 16], [17, 25]]


@pytest.mark.parametrize("size", [(65, 65), (66, 97)], ids=str)
def test_dropout_and_sizes(size):
    model = SemanticFPN(5, DGMN2_Tiny(output="neck"), neck_channels=16, head_channels=8)
    x = paddle.randn([2, 3, *size])
    model.eval()
    with paddle.no_grad():
        (first,), (second,) = model(x), model(x)
        assert first.shape == [2, 5, *size]
        np.testing.assert_array_equal(first.numpy(), second.numpy())
        model.decode_head.dropout.train()
        assert float((model(x)[0] - first).abs().max()) > 0
    model.train()
    model(x)[0].sum().backward()
    assert not [n for n, p in model.named_parameters() if not p.stop_gradient and p.grad is None]


def test_takes_another_backbone_of_the_same_strides():
    model = SemanticFPN(5, ResNet18(output_stride=32), neck_channels=16, head_channels=8)
    model.eval()
    with paddle.no_grad():
        assert model(paddle.randn([1, 3, 70, 45]))[0].shape == [1, 5, 70, 45]


def test_refusals():
    for output in ("decode_head", "decode_head_multi"):
        with pytest.raises(ConfigError, match=f"DGMN2_Tiny with output '{output}' .* set `output: neck`"):
            SemanticFPN(5, DGMN2_Tiny(output=output))
    with pytest.raises(ConfigError, match="four feature maps"):
        SemanticFPN(5, nn.Conv2D(3, 3, 1))
