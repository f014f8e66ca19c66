# SPDX-License-Identifier: Apache-2.0
"""Convolution in strips of rows is the convolution of the whole map."""

import paddle_dnl  # noqa: F401
from paddle_dnl.nn.cpu import row_strips
from paddle_dnl.nn.cpu.row_strips import Conv2D

import numpy as np
import paddle
import pytest
from finite_differences import slopes
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


def _paddle(conv):
    """The layer as Paddle computes it, in one operation."""
    return lambda x: nn.Conv2D.forward(conv, x)


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
    conv = Conv2D(4, 6, **options)
    x = paddle.randn([2, 4, 23, 9])
    with paddle.no_grad():
        expected = _paddle(conv)(x).numpy()
        calls.clear()
        per_row = row_strips.unfolded_bytes(conv, 4, 1, expected.shape[3])
        monkeypatch.setattr(row_strips, "UNFOLDED_LIMIT", rows * per_row)
        out = conv(x).numpy()
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)
    strips = -(-expected.shape[2] // rows)
    assert len(calls) == strips
    if strips > 4 and rows == 1 and "dilation" not in options:
        assert max(calls) < 23


def test_rows_of_padding_alone_are_left_to_paddle(monkeypatch, calls):
    monkeypatch.setattr(row_strips, "UNFOLDED_LIMIT", 1)
    conv, x = Conv2D(2, 2, 3, padding=4), paddle.randn([1, 2, 9, 9])
    for context in (paddle.no_grad(), paddle.enable_grad()):
        with context:
            np.testing.assert_array_equal(conv(x).numpy(), _paddle(conv)(x).numpy())
    assert calls == [9, 9]


def test_hooks_are_called_and_change_nothing(monkeypatch, calls):
    monkeypatch.setattr(row_strips, "UNFOLDED_LIMIT", 1)
    conv, seen = Conv2D(2, 2, 3, padding=1), []
    for watch in (conv.register_forward_pre_hook, conv.register_forward_post_hook):
        calls.clear()
        hook = watch(lambda *_: seen.append(1))
        conv(paddle.randn([1, 2, 9, 9]))
        hook.remove()
        assert len(calls) == 9
    assert len(seen) == 2


@pytest.mark.parametrize("options", [{"padding": "same"}, {"padding_mode": "reflect"}, {"data_format": "NHWC"}])
def test_what_strips_do_not_cover_is_refused(options):
    with pytest.raises(ValueError, match="paddle.nn.Conv2D"):
        Conv2D(2, 2, 3, **options)


def test_parameters_have_the_names_of_paddles_layer():
    """Optimizer state is keyed by generated names: those of checkpoints written before must not change."""
    with paddle.utils.unique_name.guard():
        theirs = [p.name for p in nn.Conv2D(2, 2, 3).parameters()]
    with paddle.utils.unique_name.guard():
        assert [p.name for p in Conv2D(2, 2, 3).parameters()] == theirs


def test_unfolded_bytes_by_hand():
    assert row_strips.unfolded_bytes(nn.Conv2D(2048, 512, 3, padding=1), 2048, 128, 256) == 2048 * 9 * 128 * 256 * 4
    assert row_strips.unfolded_bytes(nn.Conv2D(8, 8, 1), 8, 10, 10) == 0
    assert row_strips.unfolded_bytes(nn.Conv2D(8, 8, 1, stride=2), 8, 10, 10) == 8 * 100 * 4


def _gradients(convolve, x, conv):
    """Of input, weight and bias, under a random gradient of the result."""
    x = x.clone()
    x.stop_gradient = False
    out = convolve(x)
    out.backward(paddle.to_tensor(np.random.default_rng(1).normal(size=out.shape).astype(x.numpy().dtype)))
    grads = [x.grad, conv.weight.grad, None if conv.bias is None else conv.bias.grad]
    grads = [grad.numpy().copy() for grad in grads if grad is not None]  # clearing writes zeros into their memory
    conv.clear_gradients()
    return grads


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("options", CONVS.values(), ids=CONVS)
def test_same_gradients(options, rows, monkeypatch, calls):
    """Paddle's own convolution says what they are; stride and groups are left to it."""
    paddle.seed(0)
    conv = Conv2D(4, 6, **options)
    x = paddle.randn([2, 4, 23, 9])
    expected = _gradients(_paddle(conv), x, conv)
    limit = rows * row_strips.unfolded_bytes(conv, 4, 1, conv(x).shape[3])
    calls.clear()
    monkeypatch.setattr(row_strips, "UNFOLDED_LIMIT", limit)
    for one, other in zip(_gradients(conv, x, conv), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert (len(calls) > 1) == ("stride" not in options and "groups" not in options)


def test_gradients_by_finite_differences(monkeypatch):
    """In float64, independent of every convolution's own backward pass."""
    monkeypatch.setattr(row_strips, "UNFOLDED_LIMIT", 1)
    paddle.seed(0)
    conv = Conv2D(2, 3, 3, padding=2, dilation=2).to(dtype="float64")
    x = paddle.randn([2, 2, 6, 5]).astype("float64")
    factor = np.random.default_rng(1).normal(size=conv(x).shape)
    found = _gradients(conv, x, conv)

    def value():
        with paddle.no_grad():
            return float((_paddle(conv)(x).numpy() * factor).sum())

    for tensor, grad in zip((x, conv.weight, conv.bias), found, strict=True):
        for place, slope in slopes(value, tensor, 1e-4):
            assert slope == pytest.approx(grad[place], abs=1e-6)


@pytest.mark.parametrize("frozen", ["x", "weight", "bias", "all but x"])
def test_what_does_not_learn_gets_no_gradient(frozen, monkeypatch):
    monkeypatch.setattr(row_strips, "UNFOLDED_LIMIT", 1)
    conv = Conv2D(2, 2, 3, padding=1)
    x = paddle.randn([1, 2, 9, 9])
    x.stop_gradient = frozen == "x"
    conv.weight.stop_gradient = frozen in ("weight", "all but x")
    conv.bias.stop_gradient = frozen in ("bias", "all but x")
    conv(x).sum().backward()
    for tensor in (x, conv.weight, conv.bias):
        assert (tensor.grad is None) == tensor.stop_gradient


def test_result_may_be_changed_in_place(monkeypatch):
    """As `relu_inplace` does."""
    monkeypatch.setattr(row_strips, "UNFOLDED_LIMIT", 1)
    conv = Conv2D(2, 2, 3, padding=1)
    x = paddle.randn([1, 2, 9, 9])
    expected = _gradients(lambda x: nn.functional.relu(_paddle(conv)(x)), x, conv)
    for one, other in zip(_gradients(lambda x: nn.functional.relu_(conv(x)), x, conv), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
