"""Convolution in strips of rows is the convolution of the whole map."""

import paddle_dnl  # noqa: F401
from paddle_dnl.nn import row_strips

import numpy as np
import paddle
import pytest
from paddle import nn

CONVS = {
    "3x3": dict(kernel_size=3, padding=1),
    "dilated": dict(kernel_size=3, padding=4, dilation=4),
    "stride 2": dict(kernel_size=3, stride=2, padding=1),
    "7x7 stride 4": dict(kernel_size=7, stride=4, padding=3, bias_attr=False),
    "unequal sides": dict(kernel_size=(3, 5), padding=(1, 2)),
    "no padding": dict(kernel_size=3),
    "groups": dict(kernel_size=3, padding=1, groups=2),
    "wider than the map": dict(kernel_size=3, padding=12, dilation=12),
}


@pytest.fixture
def calls(monkeypatch):
    """Input heights of the convolutions that were made."""
    heights = []
    original = row_strips.F.conv2d

    def note(x, *args, **kwargs):
        heights.append(x.shape[2])
        return original(x, *args, **kwargs)

    monkeypatch.setattr(row_strips.F, "conv2d", note)
    return heights


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
@pytest.mark.parametrize("options", CONVS.values(), ids=CONVS)
def test_same_numbers(options, rows, monkeypatch, calls):
    paddle.seed(0)
    conv = nn.Conv2D(4, 6, **options)
    x = paddle.randn([2, 4, 23, 9])
    with paddle.no_grad():
        expected = conv(x).numpy()
        calls.clear()
        per_row = row_strips.unfolded_bytes(conv, 4, 1, expected.shape[3])
        monkeypatch.setattr(row_strips, "UNFOLDED_LIMIT", rows * per_row)
        out = row_strips.conv2d(x, conv).numpy()
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)
    strips = -(-expected.shape[2] // rows)
    assert len(calls) == (strips if strips > 1 else 0)  # a single strip is the layer itself
    if strips > 4 and rows == 1 and "dilation" not in options:
        assert max(calls) < 23


def test_unfolded_bytes_by_hand():
    assert row_strips.unfolded_bytes(nn.Conv2D(2048, 512, 3, padding=1), 2048, 128, 256) == 2048 * 9 * 128 * 256 * 4
    assert row_strips.unfolded_bytes(nn.Conv2D(8, 8, 1), 8, 10, 10) == 0
    assert row_strips.unfolded_bytes(nn.Conv2D(8, 8, 1, stride=2), 8, 10, 10) == 8 * 100 * 4


def test_with_gradients_it_is_one_convolution(monkeypatch, calls):
    monkeypatch.setattr(row_strips, "UNFOLDED_LIMIT", 1)
    conv = nn.Conv2D(2, 2, 3, padding=1)
    row_strips.conv2d(paddle.randn([1, 2, 9, 9]), conv).sum().backward()
    assert conv.weight.grad is not None and not calls
