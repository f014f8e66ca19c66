# SPDX-License-Identifier: Apache-2.0
"""Simulated autocast against rounding in NumPy, and short trainings in it."""

from paddle_dnl.data.prepare.convert_cityscapes import convert_tree
from paddle_dnl.data.scenes.mini_cityscapes import generate
from paddle_dnl.gpu.rounding import LargestMagnitudes, rounded_like_autocast
from paddle_dnl.gpu.simulation import small_config, train_in
from paddle_dnl.nn.attention import attend

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F


def half(value) -> np.ndarray:
    return np.asarray(value, np.float32).astype(np.float16).astype(np.float32)


def test_inputs_results_and_gradients_of_products_are_rounded():
    rng = np.random.default_rng(0)
    a, b, upstream = (rng.normal(size=(3, 3)).astype(np.float32) for _ in range(3))
    x, y = paddle.to_tensor(a, stop_gradient=False), paddle.to_tensor(b)
    with rounded_like_autocast("float16"):
        product = paddle.matmul(x, y)
    product.backward(paddle.to_tensor(upstream))
    np.testing.assert_array_equal(product.numpy(), half(product.numpy()))
    np.testing.assert_allclose(product.numpy(), half(half(a) @ half(b)), rtol=1e-3)
    np.testing.assert_array_equal(x.grad.numpy(), half(x.grad.numpy()))
    np.testing.assert_allclose(x.grad.numpy(), half(half(upstream) @ half(b).T), rtol=1e-3)


@pytest.mark.parametrize("operator", [
    lambda x: F.conv2d(x, paddle.full([1, 1, 1, 1], 0.1)), lambda x: F.linear(x, paddle.eye(2) * 0.1),
    lambda x: x.matmul(paddle.eye(2) * 0.1),
])  # fmt: skip
def test_convolutions_and_products_are_rounded_and_nothing_outlives_the_context(operator):
    x = paddle.full([1, 1, 2, 2], 0.1)
    with rounded_like_autocast("bfloat16"):
        rounded = float(operator(x)[0, 0, 0, 0])
        kept = float((x * 0.1)[0, 0, 0, 0])
    tenth = float(paddle.to_tensor(0.1).astype("bfloat16").astype("float32"))
    assert rounded == float(paddle.to_tensor(tenth * tenth).astype("bfloat16").astype("float32"))
    assert kept == float(np.float32(0.1) * np.float32(0.1)) == pytest.approx(float(operator(x)[0, 0, 0, 0]), rel=1e-6)


def test_attention_keeps_its_logits_in_float32():
    q = paddle.full([1, 2, 4], 200.0)
    v = paddle.eye(2).unsqueeze(0)
    with rounded_like_autocast("float16"):
        assert not bool(paddle.matmul(q, q, transpose_y=True).isfinite().all()), "160000 is beyond float16"
        assert bool(attend(q, q, v).isfinite().all())


def test_largest_magnitudes_are_of_the_leaves():
    model = paddle.nn.Sequential(paddle.nn.ReLU(), paddle.nn.Sequential(paddle.nn.Flatten()))
    watch = LargestMagnitudes(model)
    model(paddle.to_tensor([[-5.0, 3.0]]))
    model(paddle.to_tensor([[1.0, 2.0]]))
    assert watch.stop() == {"0": 3.0, "1.0": 3.0}
    model(paddle.to_tensor([[9.0, 9.0]]))
    assert watch.largest["0"] == 3.0


@pytest.mark.parametrize("family", ["DNLNet, OpenMMLab", "DGMN2, SETR-MLA"])
def test_a_training_in_simulated_half_precision_stays_near_float32(family, tmp_path):
    convert_tree(generate(tmp_path / "data", train=2, val=1, size=(256, 128), seed=0), num_workers=1)
    config = small_config(family, str(tmp_path / "data"), 2, crop=64)
    exact, rounded = train_in(config, "fp32"), train_in(config, "fp16")
    assert exact.losses == train_in(config, "fp32").losses, "the same start and samples"
    assert rounded.is_finite and rounded.losses != exact.losses
    np.testing.assert_allclose(rounded.losses, exact.losses, rtol=0.02)
    assert 0 < max(rounded.largest.values()) < 65504
