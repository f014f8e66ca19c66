# SPDX-License-Identifier: Apache-2.0
"""Winograd's algorithm gives the convolution and its gradients to float32 rounding, and is taken where it may be."""

import paddle_dnl  # noqa: F401
from paddle_dnl.nn.cpu import row_strips, winograd
from paddle_dnl.nn.cpu.row_strips import Conv2D

import numpy as np
import paddle
import pytest

# Batch, channels in and out, height, width, dilation.
SHAPES = {
    "whole tiles": (1, 3, 5, 8, 12, 1),
    "odd sides": (2, 4, 3, 7, 11, 1),
    "dilated": (2, 5, 4, 16, 8, 2),
    "dilated, not whole tiles": (1, 2, 6, 17, 14, 4),
    "dilated beyond the map": (1, 3, 2, 4, 5, 3),
    "one pixel": (1, 2, 2, 1, 1, 1),
}


def _expected(x, weight, grad, d):
    """Convolution, gradient of the input and of the weights, as sums over the nine taps in float64."""
    x, weight, grad = (a.astype(np.float64) for a in (x, weight, grad))
    height, width = x.shape[2:]
    padded = np.pad(x, [(0, 0), (0, 0), (d, d), (d, d)])
    y, of_padded, of_weight = 0, np.zeros_like(padded), np.zeros_like(weight)
    for i in range(3):
        for j in range(3):
            window = (slice(None), slice(None), slice(i * d, i * d + height), slice(j * d, j * d + width))
            y = y + np.einsum("kc,bchw->bkhw", weight[:, :, i, j], padded[window])
            of_padded[window] += np.einsum("kc,bkhw->bchw", weight[:, :, i, j], grad)
            of_weight[:, :, i, j] = np.einsum("bkhw,bchw->kc", grad, padded[window])
    return y, of_padded[:, :, d : d + height, d : d + width], of_weight


@pytest.mark.parametrize("is_split", [False, True], ids=["whole", "split"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_against_the_sum_over_taps(shape, is_split, monkeypatch):
    """`split`: one row of tiles per product, one channel per block."""
    batch, inputs, outputs, height, width, d = shape
    if is_split:
        monkeypatch.setattr(winograd, "WORKING_BYTES", 1)
        monkeypatch.setattr(winograd, "_BLOCK_BYTES", 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    rng = np.random.default_rng(0)
    x, grad = (rng.normal(size=(batch, c, height, width)).astype(np.float32) for c in (inputs, outputs))
    weight = rng.normal(size=(outputs, inputs, 3, 3)).astype(np.float32)
    # A view of every second map: its memory is not contiguous.
    wide = paddle.to_tensor(x.repeat(2, axis=1))[:, ::2]
    weights, gradient = paddle.to_tensor(weight), paddle.to_tensor(grad)
    found = [
        winograd.convolve(wide, weights, d),
        winograd.convolve(gradient, weights, d, transposed=True),
        winograd.weight_gradient(wide, gradient, d),
    ]
    for tensor, expected in zip(found, _expected(x, weight, grad, d), strict=True):
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.fixture
def calls(monkeypatch):
    """Names of the functions that were called; strips begin at once, and few channels suffice."""
    monkeypatch.setattr(row_strips, "UNFOLDED_LIMIT", 1)
    monkeypatch.setattr(winograd, "_CHANNELS", 1)
    found = []
    for name in ("convolve", "weight_gradient"):
        original = getattr(winograd, name)
        monkeypatch.setattr(winograd, name, lambda *a, _f=original, _n=name, **k: found.append(_n) or _f(*a, **k))
    return found


def test_a_layer_takes_it(calls):
    paddle.seed(0)
    conv, x = Conv2D(4, 6, 3, padding=2, dilation=2), paddle.randn([1, 4, 12, 8])
    x.stop_gradient = False
    expected = paddle.nn.Conv2D.forward(conv, x)
    grad = paddle.randn(expected.shape)
    gradients = paddle.grad([expected], [x, *conv.parameters()], [grad])
    with paddle.no_grad():
        np.testing.assert_allclose(conv(x).numpy(), expected.numpy(), rtol=0, atol=1e-5)
    assert calls == ["convolve"]
    y = conv(x)
    np.testing.assert_allclose(y.numpy(), expected.numpy(), rtol=0, atol=1e-5)
    for found, wanted in zip(paddle.grad([y], [x, *conv.parameters()], [grad]), gradients, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=0, atol=5e-5)
    assert sorted(calls[1:]) == ["convolve", "convolve", "weight_gradient"]


@pytest.mark.parametrize("options", [
    dict(kernel_size=3, padding=1, stride=2), dict(kernel_size=3, padding=1, groups=2), dict(kernel_size=3, padding=0),
    dict(kernel_size=3, padding=1, dilation=2), dict(kernel_size=5, padding=2), dict(kernel_size=1),
    dict(kernel_size=3, padding=(1, 2), dilation=(1, 2)),
])  # fmt: skip
def test_others_do_not(options, calls):
    Conv2D(4, 4, **options)(paddle.randn([1, 4, 12, 12])).sum().backward()
    assert calls == []


def test_neither_do_float64_small_maps_and_few_channels(calls, monkeypatch):
    conv = Conv2D(4, 4, 3, padding=1)
    conv(paddle.randn([1, 4, 12, 12])).sum().backward()
    assert len(calls) == 2  # the map itself does not learn
    calls.clear()
    monkeypatch.setattr(row_strips, "UNFOLDED_LIMIT", 1 << 20)
    conv(paddle.randn([1, 4, 12, 12])).sum().backward()
    monkeypatch.setattr(row_strips, "UNFOLDED_LIMIT", 1)
    monkeypatch.setattr(winograd, "_CHANNELS", 3)
    conv(paddle.randn([1, 4, 12, 12])).sum().backward()
    monkeypatch.setattr(winograd, "_CHANNELS", 1)
    conv.to(dtype="float64")
    conv(paddle.randn([1, 4, 12, 12]).astype("float64")).sum().backward()
    assert calls == []


@pytest.mark.parametrize("default", ["float16", "float64"])
def test_float32_whatever_the_default_type_is(default, calls):
    """An array of another type would be written beyond its end, or half."""
    paddle.seed(0)
    conv, x = Conv2D(4, 6, 3, padding=1), paddle.randn([1, 4, 12, 8])
    x.stop_gradient = False
    expected = conv(x)
    wanted = paddle.grad([expected], [x, *conv.parameters()], [paddle.ones_like(expected)])
    paddle.set_default_dtype(default)
    try:
        y = conv(x)
        found = paddle.grad([y], [x, *conv.parameters()], [paddle.ones_like(y)])
    finally:
        paddle.set_default_dtype("float32")
    assert len(calls) == 6
    for tensor, other in zip([y, *found], [expected, *wanted], strict=True):
        np.testing.assert_array_equal(tensor.numpy(), other.numpy())
