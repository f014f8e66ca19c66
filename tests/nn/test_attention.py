# SPDX-License-Identifier: Apache-2.0
"""Attention: every implementation against a NumPy float64 softmax, in value and gradient."""

from paddle_dnl.nn import attention
from paddle_dnl.nn.attention import attend

import numpy as np
import paddle
import pytest


def np_attend(q, k, v, scale):
    logits = scale * q @ k.transpose(0, 2, 1)
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ v


def np_gradients(q, k, v, scale, grad):
    """Analytic, with the softmax Jacobian written out."""
    logits = scale * q @ k.transpose(0, 2, 1)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    dp = grad @ v.transpose(0, 2, 1)
    ds = scale * p * (dp - (p * dp).sum(-1, keepdims=True))
    return ds @ k, ds.transpose(0, 2, 1) @ q, p.transpose(0, 2, 1) @ grad


def inputs(batch=2, n=23, m=23, d=8, e=5, dtype="float32"):
    rng = np.random.default_rng(3)
    return [rng.standard_normal(shape).astype(dtype) for shape in ((batch, n, d), (batch, m, d), (batch, m, e))]


def run(arrays, scale=0.7, **options):
    """Output and gradients under a fixed upstream gradient."""
    q, k, v = (paddle.to_tensor(a, stop_gradient=False) for a in arrays)
    out = attend(q, k, v, scale, **options)
    grad = np.random.default_rng(4).standard_normal(out.shape).astype(arrays[0].dtype)
    out.backward(paddle.to_tensor(grad))
    return out.numpy(), [t.grad.numpy() for t in (q, k, v)], grad


def assert_close(actual, expected, relative):
    assert np.abs(actual - expected).max() <= relative * max(1.0, np.abs(expected).max())


SHAPES = [dict(n=23, m=23), dict(n=23, m=9), dict(n=6, m=31), dict(batch=1, n=40, m=40, d=3, e=17)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_plain_equals_numpy(shape):
    arrays = inputs(**shape, dtype="float64")
    out, gradients, grad = run(arrays, implementation="plain")
    assert_close(out, np_attend(*arrays, 0.7), 1e-13)
    for actual, expected in zip(gradients, np_gradients(*arrays, 0.7, grad), strict=True):
        assert_close(actual, expected, 1e-13)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("tile", ["1", "7", "N", "N+1", "default"])
def test_streaming_equals_plain(shape, tile):
    arrays = inputs(**shape)
    rows = {"1": 1, "7": 7, "N": shape["n"], "N+1": shape["n"] + 1, "default": None}[tile]
    plain, plain_gradients, _ = run(arrays, implementation="plain")
    out, gradients, _ = run(arrays, implementation="streaming", tile_rows=rows)
    assert_close(out, plain, 1e-6)
    for actual, expected in zip(gradients, plain_gradients, strict=True):
        assert_close(actual, expected, 1e-5)
    with paddle.no_grad():
        free = attend(*(paddle.to_tensor(a) for a in arrays), 0.7, "streaming", rows)
    assert_close(free.numpy(), plain, 1e-6)


def test_streaming_gradients_by_finite_differences():
    arrays = inputs(n=11, m=9, dtype="float64")
    _, gradients, grad = run(arrays, implementation="streaming", tile_rows=4)
    rng, step = np.random.default_rng(5), 1e-6
    for i, gradient in enumerate(gradients):
        direction = rng.standard_normal(arrays[i].shape)
        values = []
        for sign in (1, -1):
            moved = list(arrays)
            moved[i] = arrays[i] + sign * step * direction
            values.append((np_attend(*moved, 0.7) * grad).sum())
        np.testing.assert_allclose((gradient * direction).sum(), (values[0] - values[1]) / (2 * step), rtol=1e-7)


def test_streaming_backward_uses_the_layer_and_keeps_no_map(monkeypatch):
    calls = []
    original = attention._StreamingAttention.apply
    monkeypatch.setattr(attention._StreamingAttention, "apply", lambda *a: calls.append(1) or original(*a))
    arrays = inputs()
    run(arrays, implementation="streaming", tile_rows=4)
    assert calls == [1]
    with paddle.no_grad():
        attend(*(paddle.to_tensor(a, stop_gradient=False) for a in arrays), 1.0, "streaming", 4)
    attend(*(paddle.to_tensor(a) for a in arrays), 1.0, "streaming", 4)  # nothing to learn
    assert calls == [1]


@pytest.mark.parametrize("trainable", range(3))
def test_streaming_with_one_trainable_input(trainable):
    arrays = inputs()
    grads = []
    for implementation in ("plain", "streaming"):
        tensors = [paddle.to_tensor(a, stop_gradient=i != trainable) for i, a in enumerate(arrays)]
        attend(*tensors, 0.7, implementation, 5).sum().backward()
        grads.append(tensors[trainable].grad.numpy())
        assert all(t.grad is None for i, t in enumerate(tensors) if i != trainable)
    assert_close(grads[1], grads[0], 1e-5)


@pytest.mark.parametrize("implementation", ["plain", "streaming"])
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_inputs_are_computed_in_float32(implementation, half):
    """Products beyond 65504 must not overflow: with 256 entries of 40 the raw product is 409600."""
    rng = np.random.default_rng(0)
    sign = np.sign(rng.standard_normal((1, 12, 256)))
    q, k = 40.0 * sign, 40.0 * sign[:, ::-1].copy()
    v = rng.standard_normal((1, 12, 8)).astype("float16").astype("float64")
    tensors = [paddle.to_tensor(a.astype("float32")).cast(half) for a in (q, k, v)]
    out = attend(*tensors, 1.25, implementation, tile_rows=5)
    assert str(out.dtype).endswith(half)
    expected = np_attend(q, k, tensors[2].cast("float32").numpy().astype("float64"), 1.25)
    assert_close(out.cast("float32").numpy(), expected, 1e-2)


def test_autocast_does_not_reach_the_products(monkeypatch):
    """Autocast is switched off around forward and backward (on a CPU Paddle never switches it on)."""
    states = []
    original = paddle.amp.auto_cast
    monkeypatch.setattr(paddle.amp, "auto_cast", lambda *a, **k: states.append(k.get("enable")) or original(*a, **k))
    run(inputs(), implementation="streaming", tile_rows=4)
    assert states == [False, False]  # forward and backward


def test_auto_takes_tiles_only_for_large_maps(monkeypatch):
    chosen = []
    original = attention._streaming
    monkeypatch.setattr(attention, "_streaming", lambda *a: chosen.append("streaming") or original(*a))
    attend(*(paddle.to_tensor(a) for a in inputs()))
    assert chosen == []
    large = [paddle.zeros([1, 2100, 2]) for _ in range(3)]  # 2100 x 2100 float32 is 16.8 MiB
    attend(*large)
    assert chosen == ["streaming"]


@pytest.fixture
def rows(monkeypatch) -> list[int]:
    """A list that grows with the query rows of each tile."""
    found, original = [], attention._rows
    monkeypatch.setattr(attention, "_rows", lambda q, k, v: found.append(q.shape[1]) or original(q, k, v))
    return found


def test_default_tile_is_bounded(monkeypatch, rows):
    """The largest piece of the map that exists at one time is the tile's 32 MiB."""
    monkeypatch.setattr(attention, "_CPU", attention._CPU._replace(tile_bytes=4 * 100 * 30 * 2))
    attend(*(paddle.zeros([2, 100, 4]) for _ in range(3)), 1.0, "streaming")
    assert rows == [30, 30, 30, 10]


def test_a_gpu_gets_fewer_and_larger_tiles(monkeypatch, rows):
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    # Maps of 61 and 309 MiB; 256 MiB are 7456 rows of 9000.
    for length, expected in ((4000, [4000]), (9000, [7456, 1544])):
        attend(paddle.zeros([1, length, 1]), paddle.zeros([1, length, 1]), paddle.zeros([1, length, 1]))
        assert rows == expected
        rows.clear()


class _Attention(paddle.nn.Layer):
    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, q, k, v):
        return attend(q, k, v, 0.7, **self.options)


def _save(shapes, path, **options):
    spec = [paddle.static.InputSpec(shape, "float32", name) for shape, name in zip(shapes, "qkv", strict=True)]
    layer = _Attention(**options)
    layer.eval()
    paddle.jit.save(paddle.jit.to_static(layer, input_spec=spec, full_graph=True), path)
    return paddle.jit.load(path)


@pytest.mark.parametrize(
    "options", [dict(implementation="streaming", tile_rows=7), dict(implementation="auto")], ids=str
)
def test_fixed_shape_static_graph(options, tmp_path):
    arrays = inputs(n=23, m=11)
    loaded = _save([a.shape for a in arrays], str(tmp_path / "a"), **options)
    out = loaded(*(paddle.to_tensor(a) for a in arrays)).numpy()
    assert_close(out, np_attend(*(a.astype("float64") for a in arrays), 0.7), 1e-6)


def test_free_length_static_graph_takes_plain_and_returns(tmp_path):
    arrays = inputs()
    loaded = _save([[-1, -1, 8], [-1, -1, 8], [-1, -1, 5]], str(tmp_path / "a"))
    out = loaded(*(paddle.to_tensor(a) for a in arrays)).numpy()
    assert_close(out, np_attend(*(a.astype("float64") for a in arrays), 0.7), 1e-6)


def test_streaming_with_free_length_is_refused(tmp_path):
    with pytest.raises(Exception, match="input_shape"):
        _save([[-1, -1, 8], [-1, -1, 8], [-1, -1, 5]], str(tmp_path / "a"), implementation="streaming")


def test_unknown_and_unavailable_implementations():
    tensors = [paddle.to_tensor(a) for a in inputs()]
    with pytest.raises(ValueError, match="streaming"):
        attend(*tensors, implementation="fast")
    if not paddle.is_compiled_with_cuda():
        with pytest.raises(RuntimeError, match="not a CUDA GPU.*streaming"):
            attend(*tensors, implementation="flash")
