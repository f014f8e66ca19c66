# SPDX-License-Identifier: Apache-2.0
"""A chain that computes its inner batch norms again learns as the layers themselves do."""

import itertools

import paddle_dnl  # noqa: F401
from paddle_dnl.nn.cpu import recomputed_norm
from paddle_dnl.nn.cpu.recomputed_norm import ConvChain
from paddle_dnl.nn.layers import ConvBN, ConvBNReLU

import numpy as np
import paddle
import pytest
from finite_differences import slopes
from paddle import nn

# What the inner layers look like: the first feeds a recomputed norm, the others are behind one.
CHAINS = {
    "bottleneck": [dict(kernel_size=1), dict(kernel_size=3, dilation=2), dict(kernel_size=1)],
    "biased": [dict(kernel_size=3), dict(kernel_size=3)],
    "strided": [dict(kernel_size=1), dict(kernel_size=3, stride=2), dict(kernel_size=1)],
    "without bias": [dict(kernel_size=3, stride=2, bias_attr=False), dict(kernel_size=3, bias_attr=False)],
}


@pytest.fixture(autouse=True)
def every_map_is_large(monkeypatch):
    monkeypatch.setattr(recomputed_norm, "KEPT_LIMIT", 0)


@pytest.fixture
def applied(monkeypatch):
    """How often the recomputing layer was used."""
    count = []
    original = recomputed_norm._NormReluConv.apply
    monkeypatch.setattr(recomputed_norm._NormReluConv, "apply", lambda *args: count.append(1) or original(*args))
    return count


def _chain(options, dtype="float32"):
    """Layers with weights and statistics that are not those of a new one."""
    paddle.seed(0)
    channels, layers = 3, []
    for place, one in enumerate(options):
        layers.append((ConvBN if place == len(options) - 1 else ConvBNReLU)(channels, 4 + place, **one))
        channels = 4 + place
        for parameter in (layers[-1]._batch_norm.weight, layers[-1]._batch_norm.bias):
            parameter.set_value(paddle.randn(parameter.shape))
    return nn.Sequential(*layers).to(dtype=dtype)


def _plainly(x, *layers):
    """Paddle's own convolution, batch norm and ReLU."""
    for layer in layers:
        x = layer._batch_norm(nn.Conv2D.forward(layer._conv, x))
        if isinstance(layer, ConvBNReLU):
            x = nn.functional.relu(x)
    return x


def _recomputed(x, *layers):
    return ConvChain(*layers)(x)


def _weights_and_statistics(layers):
    """Paddle counts the running statistics among the parameters."""
    found = dict(layers.named_parameters())
    statistics = {name: found.pop(name) for name in list(found) if name.endswith(("_mean", "_variance"))}
    return found, statistics


def _learn(way, layers, x):
    """Result, gradients of the input and of every weight, and the running statistics afterwards."""
    weights, statistics = _weights_and_statistics(layers)
    before = [buffer.numpy().copy() for buffer in statistics.values()]
    x = x.clone()
    x.stop_gradient = False
    out = way(x, *layers)
    out.backward(paddle.to_tensor(np.random.default_rng(1).normal(size=out.shape).astype(x.numpy().dtype)))
    learnt = {name: weight.grad.numpy().copy() for name, weight in weights.items()}
    learnt.update(out=out.numpy(), x=x.grad.numpy().copy())
    learnt.update({name: buffer.numpy().copy() for name, buffer in statistics.items()})
    layers.clear_gradients()
    for buffer, start in zip(statistics.values(), before, strict=True):
        buffer.set_value(start)
    return learnt


@pytest.mark.parametrize("options", CHAINS.values(), ids=CHAINS)
def test_learns_as_the_layers_do(options, strips, applied):
    layers = _chain(options)
    x = paddle.randn([2, 3, 13, 9])
    expected = _learn(_plainly, layers, x)
    found = _learn(_recomputed, layers, x)
    inner = [one for one in options[1:] if "stride" not in one]
    assert len(applied) == len(inner)
    assert found.keys() == expected.keys() and "0._batch_norm._mean" in found
    for name, value in expected.items():
        # A bias in front of a batch norm has no gradient but rounding.
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=3e-5, err_msg=name)


def test_gradients_by_finite_differences(strips):
    layers = _chain(CHAINS["bottleneck"], "float64")
    x = paddle.randn([2, 3, 5, 4]).astype("float64")
    found = _learn(_recomputed, layers, x)
    factor = np.random.default_rng(1).normal(size=found["out"].shape)

    def value():
        with paddle.no_grad():
            return float((_plainly(x, *layers).numpy() * factor).sum())

    for name, tensor in {"x": x, **_weights_and_statistics(layers)[0]}.items():
        for place, slope in itertools.islice(slopes(value, tensor, 1e-6), 40):
            assert slope == pytest.approx(found[name][place], rel=1e-5, abs=1e-5), (name, place)


@pytest.mark.parametrize(
    "frozen", ["x", "1._conv.weight", "1._conv.bias", "0._batch_norm.weight", "0._batch_norm.bias"]
)
def test_what_does_not_learn_gets_no_gradient(frozen, applied):
    """The layers themselves say what else has none: Paddle gives a norm's weight and bias theirs together or not at all."""
    layers = _chain(CHAINS["biased"])
    x = paddle.randn([1, 3, 8, 8])
    tensors = {"x": x, **_weights_and_statistics(layers)[0]}
    for name, tensor in tensors.items():
        tensor.stop_gradient = name == frozen
    learnt = []
    for way in (_plainly, _recomputed):
        way(x, *layers).sum().backward()
        learnt.append({name for name, tensor in tensors.items() if tensor.grad is not None})
        for tensor in tensors.values():
            tensor.clear_gradient(set_to_zero=False)
    assert applied
    assert learnt[1] == learnt[0] and frozen not in learnt[1]


def test_only_the_second_convolution_learns(applied):
    layers = _chain(CHAINS["biased"])
    for parameter in (*layers[0].parameters(), *layers[1].parameters()):
        parameter.stop_gradient = True
    layers[1]._conv.weight.stop_gradient = False
    ConvChain(*layers)(paddle.randn([1, 3, 8, 8])).sum().backward()
    assert applied
    learning = [name for name, parameter in layers.named_parameters() if parameter.grad is not None]
    assert learning == ["1._conv.weight"]


@pytest.mark.parametrize("case", ["evaluation", "frozen statistics", "global statistics", "small", "no gradients"])
def test_layers_themselves_where_nothing_is_gained(case, applied, monkeypatch):
    layers = _chain(CHAINS["biased"])
    x = paddle.randn([1, 3, 8, 8])
    if case == "evaluation":
        layers.eval()
    elif case == "frozen statistics":
        layers[0]._batch_norm.eval()
    elif case == "global statistics":
        layers[0]._batch_norm._use_global_stats = True
    elif case == "small":
        monkeypatch.setattr(recomputed_norm, "KEPT_LIMIT", 1 << 20)
    expected = _learn(_plainly, layers, x)
    with paddle.set_grad_enabled(case != "no gradients"):
        out = ConvChain(*layers)(x)
    assert not applied
    np.testing.assert_allclose(out.numpy(), expected["out"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("part", ["0", "0._batch_norm", "1._conv"])
def test_hooks_are_called(part, applied):
    layers = _chain(CHAINS["biased"])
    seen = []
    hook = dict(layers.named_sublayers())[part].register_forward_post_hook(lambda *_: seen.append(part))
    ConvChain(*layers)(paddle.randn([1, 3, 8, 8]))
    assert seen == [part] and not applied
    hook.remove()
    ConvChain(*layers)(paddle.randn([1, 3, 8, 8]))
    assert seen == [part] and applied


def test_inner_results_are_not_kept():
    """Between the passes the chain holds one map less per inner layer than the layers themselves."""
    layers = nn.Sequential(*(ConvBNReLU(8, 8, 1, bias_attr=False) for _ in range(4)), ConvBN(8, 8, 1, bias_attr=False))
    x = paddle.randn([1, 8, 128, 128])

    def held(way) -> float:
        """Maps that the allocator has given out, after the forward pass."""
        before = _allocated()
        out = way(x, *layers)
        maps = (_allocated() - before) / (x.size * 4)
        out.sum().backward()
        return maps

    held(_plainly)  # gradients of the parameters exist from here on
    assert held(_plainly) - held(_recomputed) == pytest.approx(4, abs=0.5)


def _allocated() -> int:
    return paddle.base.core.host_memory_stat_current_value("Allocated", 0)
