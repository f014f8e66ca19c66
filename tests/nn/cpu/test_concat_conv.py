# SPDX-License-Identifier: Apache-2.0
"""A layer on a concatenation that is never made is the layer on the concatenation."""

import paddle_dnl  # noqa: F401
from paddle_dnl.nn.cpu.concat_conv import ConcatConvBNReLU

import numpy as np
import paddle
import pytest
from finite_differences import slopes
from paddle import nn

WIDTHS = (3, 1, 4)


@pytest.fixture
def concatenations(monkeypatch):
    """Widths of what was concatenated along channels."""
    made, original = [], paddle.concat

    def note(parts, axis=0):
        result = original(parts, axis=axis)
        if axis == 1:
            made.append(result.shape[1])
        return result

    monkeypatch.setattr(paddle, "concat", note)
    return made


def _layer(dtype="float32", **options):
    paddle.seed(0)
    return ConcatConvBNReLU(sum(WIDTHS), 5, 3, **options).to(dtype=dtype)


def _parts(dtype="float32", size=(7, 9)):
    parts = [paddle.randn([2, width, *size]).astype(dtype) for width in WIDTHS]
    for part in parts:
        part.stop_gradient = False
    return parts


def _on_concatenation(layer, parts):
    """Paddle's own convolution of the concatenation, then norm and ReLU."""
    return paddle.nn.functional.relu(layer._batch_norm(nn.Conv2D.forward(layer._conv, paddle.concat(parts, axis=1))))


def _weights(layer):
    return {name: p for name, p in layer.named_parameters() if not name.endswith(("_mean", "_variance"))}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("options", [{}, {"bias_attr": False}, {"dilation": 2}], ids=["biased", "plain", "dilated"])
def test_same_numbers_without_the_concatenation(options, training, strips, concatenations):
    layer, parts = _layer(**options), _parts()
    layer.train() if training else layer.eval()
    with paddle.no_grad():
        found = layer(parts).numpy()
        assert not concatenations
        expected = _on_concatenation(layer, parts).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_parts_are_taken_one_after_another():
    """A part may be freed before the next one is made."""
    layer, parts, taken = _layer(), _parts(), []

    def one_by_one():
        for part in parts:
            taken.append(layer._conv.weight.shape)
            yield part

    layer.eval()
    with paddle.no_grad():
        found = layer(one_by_one()).numpy()
        np.testing.assert_allclose(found, layer(parts).numpy())
    assert len(taken) == len(WIDTHS)


def test_same_gradients(strips):
    layer, parts = _layer(), _parts()
    factor = paddle.to_tensor(np.random.default_rng(1).normal(size=[2, 5, 7, 9]).astype("float32"))
    learnt = []
    for way in (lambda: _on_concatenation(layer, parts), lambda: layer(parts)):
        (way() * factor).sum().backward()
        tensors = [*parts, *_weights(layer).values()]
        learnt.append([tensor.grad.numpy().copy() for tensor in tensors])
        for tensor in tensors:
            tensor.clear_gradient(set_to_zero=False)
    for one, other in zip(*learnt, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=3e-5)


def test_gradients_by_finite_differences(strips):
    layer, parts = _layer("float64"), _parts("float64", (4, 3))
    factor = np.random.default_rng(1).normal(size=[2, 5, 4, 3])
    (layer(parts) * paddle.to_tensor(factor)).sum().backward()

    def value():
        with paddle.no_grad():
            return float((_on_concatenation(layer, parts).numpy() * factor).sum())

    for tensor in (*parts, layer._conv.weight, layer._batch_norm.weight):
        found = tensor.grad.numpy()
        for place, slope in slopes(value, tensor, 1e-6):
            assert slope == pytest.approx(found[place], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("part", ["", "_conv", "_batch_norm"])
def test_hooks_are_called(part, concatenations):
    layer, parts, seen = _layer(), _parts(), []
    target = getattr(layer, part) if part else layer
    hook = target.register_forward_post_hook(lambda *_: seen.append(1))
    layer(iter(parts))
    hook.remove()
    assert seen and concatenations == ([sum(WIDTHS)] if part else [])
