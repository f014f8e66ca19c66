# SPDX-License-Identifier: Apache-2.0
"""Deformable sampling against values of the original CUDA code (compiled for a CPU) and against a NumPy loop."""

import json
from pathlib import Path

from paddle_dnl.errors import ConfigError
from paddle_dnl.nn.deformable_unfold import DeformableUnfold

import golden_seeds
import numpy as np
import paddle
import pytest

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "blocks"
CASES = json.loads((GOLDEN / "deform_unfold.json").read_text())["cases"]
BOTH = ("deform", "grid")


pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("implementation", BOTH)
@pytest.mark.parametrize("case", CASES, ids=[case["key"] for case in CASES])
def test_equals_the_original_kernel(case, implementation):
    """Value and both gradients; 30 to 60 % of the points lie outside the map, up to 100 pixels away."""
    key = case["key"]
    x = paddle.to_tensor(golden_seeds.seeded_input(key, case["x_shape"]).astype("float64"), stop_gradient=False)
    offset = golden_seeds.seeded_offset(key, case["offset_shape"]).astype("float64")
    offset = paddle.to_tensor(offset, stop_gradient=False)
    out = DeformableUnfold(case["x_shape"][1], implementation)(x, offset)
    upstream = golden_seeds.seeded_input(f"grad:{key}", case["grad_shape"]).astype("float64")
    out.backward(paddle.to_tensor(upstream.reshape(out.shape)))
    stored = np.load(GOLDEN / "deform_unfold.npz")
    exact = 1e-14 if implementation == "deform" else 1e-9
    np.testing.assert_allclose(out.numpy().reshape(case["grad_shape"]), stored[f"{key}/out"], rtol=0, atol=exact)
    np.testing.assert_allclose(x.grad.numpy(), stored[f"{key}/grad_x"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(offset.grad.numpy(), stored[f"{key}/grad_offset"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("implementation", BOTH)
def test_half_precision_inputs_are_sampled_in_float32(implementation, dtype):
    """Positions near 90 have steps of 1/16 pixel in float16; AMP at level O2 makes the constant kernels half too."""
    paddle.set_default_dtype("float32")
    rng = np.random.default_rng(1)
    x = paddle.to_tensor(rng.normal(size=(1, 2, 3, 97)).astype("float32")).astype(dtype)
    offset = paddle.to_tensor(rng.normal(0, 2, (1, 18, 3, 97)).astype("float32")).astype(dtype)
    layer = DeformableUnfold(2, implementation)
    expected = layer(x.astype("float32"), offset.astype("float32"))
    layer.to(dtype=dtype)
    found = layer(x, offset)
    assert found.dtype == paddle.float32
    np.testing.assert_array_equal(found.numpy(), expected.numpy())


def np_unfold(x, offset):
    """Bilinear look-ups one by one; a neighbour outside the map counts as zero."""
    b, c, h, w = x.shape
    out = np.zeros((b, c, 9, h, w))
    for n, s, i, j in np.ndindex(b, 9, h, w):
        y = i - 1 + s // 3 + offset[n, 2 * s, i, j]
        z = j - 1 + s % 3 + offset[n, 2 * s + 1, i, j]
        if not (-1 < y < h and -1 < z < w):  # also what is no number
            continue
        top, left = int(np.floor(y)), int(np.floor(z))
        for r, q in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            if 0 <= r < h and 0 <= q < w:
                out[n, :, s, i, j] += (1 - abs(y - r)) * (1 - abs(z - q)) * x[n, :, r, q]
    return out.reshape(b, c, 9, h * w)


@pytest.mark.parametrize("implementation", BOTH)
@pytest.mark.parametrize("size", [(3, 3), (4, 7), (9, 3)], ids=str)
def test_is_bilinear_sampling(size, implementation):
    rng = np.random.default_rng(0)
    x, offset = rng.normal(size=(2, 3, *size)), 3 * rng.normal(size=(2, 18, *size))
    out = DeformableUnfold(3, implementation)(paddle.to_tensor(x), paddle.to_tensor(offset))
    np.testing.assert_allclose(out.numpy(), np_unfold(x, offset), rtol=0, atol=1e-10)


@pytest.mark.parametrize("implementation", BOTH)
def test_no_offset_is_plain_unfolding(implementation):
    x = paddle.randn([2, 3, 4, 5])
    out = DeformableUnfold(3, implementation)(x, paddle.zeros([2, 18, 4, 5]))
    expected = paddle.nn.functional.unfold(x, 3, paddings=1).reshape([2, 3, 9, 20])
    np.testing.assert_allclose(out.numpy(), expected.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("implementation", BOTH)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38, -1e30])
def test_offsets_beyond_all_bounds_give_zeros(value, implementation, dtype):
    """And nothing else changes. A NaN ends the process in grid_sample of 2.6 and in the deformable gradient of all."""
    paddle.set_default_dtype(dtype)
    rng = np.random.default_rng(1)
    x, offset = rng.normal(size=(1, 2, 4, 5)).astype(dtype), rng.normal(size=(1, 18, 4, 5)).astype(dtype)
    offset[0, 0, 1, 2] = offset[0, 7, 3, 3] = offset[0, 16:, 0, 0] = value
    a, o = (paddle.to_tensor(v, stop_gradient=False) for v in (x, offset))
    out = DeformableUnfold(2, implementation)(a, o)
    tolerance = 1e-10 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(out.numpy(), np_unfold(x, offset), rtol=0, atol=tolerance)
    assert not out.numpy()[0, :, [0, 3, 8], [7, 18, 0]].any()
    out.sum().backward()
    assert np.isfinite(a.grad.numpy()).all() and np.isfinite(o.grad.numpy()).all()
    assert o.grad.numpy()[0, 0, 1, 2] == 0


def test_auto_follows_mode_and_device():
    unfold = DeformableUnfold(2)
    unfold.train()
    assert unfold._uses_grid() == (paddle.get_device() == "cpu")
    unfold.eval()
    assert not unfold._uses_grid()


def test_holds_no_weights():
    assert not DeformableUnfold(4).state_dict() and not list(DeformableUnfold(4).parameters())


def test_refusals():
    with pytest.raises(ConfigError, match="DGMN2.unfold: 'gather' is none of auto, deform, grid"):
        DeformableUnfold(2, "gather")
    for size in ((2, 9), (9, 2)):
        with pytest.raises(ConfigError, match="map of 3x3 or more, got " + "x".join(map(str, size))):
            DeformableUnfold(2)(paddle.zeros([1, 2, *size]), paddle.zeros([1, 18, *size]))
