"""DGMN2's sampling: the original CUDA functions' values and gradients, and offsets that no training should give."""

import json
from pathlib import Path

from paddle_dnl.errors import ConfigError
from paddle_dnl.nn.deformable_unfold import DeformableUnfold

import golden_seeds
import numpy as np
import paddle
import pytest

BLOCKS = Path(__file__).parents[1] / "data" / "golden" / "blocks"
CASES = json.loads((BLOCKS / "deform_unfold.json").read_text())["cases"]
GOLDEN = np.load(BLOCKS / "deform_unfold.npz")


@pytest.mark.parametrize("implementation", ["deform", "grid"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c["key"])
def test_original_values_and_gradients(case, implementation):
    """Float32, as the kernels are; offsets keep away from integers, where the derivative jumps."""
    key = case["key"]
    layer = DeformableUnfold(case["x_shape"][1], implementation)
    x = paddle.to_tensor(golden_seeds.seeded_input(key, case["x_shape"]).astype("float32"), stop_gradient=False)
    offset = paddle.to_tensor(
        golden_seeds.seeded_offset(key, case["offset_shape"]).astype("float32"), stop_gradient=False
    )
    out = layer(x, offset)
    wanted = GOLDEN[f"{key}/out"]
    np.testing.assert_allclose(out.numpy().reshape(wanted.shape), wanted, atol=3e-5)
    upstream = golden_seeds.seeded_input(f"grad:{key}", case["grad_shape"]).astype("float32")
    (out.reshape(list(wanted.shape)) * paddle.to_tensor(upstream)).sum().backward()
    for tensor, name in ((x, "grad_x"), (offset, "grad_offset")):
        golden = GOLDEN[f"{key}/{name}"]
        np.testing.assert_allclose(tensor.grad.numpy(), golden, atol=1e-4 * np.abs(golden).max(), err_msg=name)


def test_zero_offsets_are_the_neighbourhood():
    x = np.arange(20, dtype=np.float32).reshape(1, 1, 4, 5)
    for implementation in ("deform", "grid"):
        out = DeformableUnfold(1, implementation)(paddle.to_tensor(x), paddle.zeros([1, 18, 4, 5])).numpy()
        padded = np.pad(x[0, 0], 1)
        for s in range(9):
            r, t = divmod(s, 3)
            np.testing.assert_allclose(out[0, 0, s].reshape(4, 5), padded[r : r + 4, t : t + 5], atol=1e-5)


@pytest.mark.parametrize("implementation", ["deform", "grid"])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 1e30, -3e38])
def test_impossible_offsets_give_zeros_and_no_crash(implementation, bad):
    x = paddle.ones([1, 2, 5, 6])
    offset = paddle.full([1, 18, 5, 6], float(bad))
    out = DeformableUnfold(2, implementation)(x, offset)
    np.testing.assert_array_equal(out.numpy(), np.zeros_like(out.numpy()))


def test_auto_follows_mode_and_device():
    layer = DeformableUnfold(2)
    layer.train()
    assert layer._uses_grid() == (paddle.get_device() == "cpu")
    layer.eval()
    assert not layer._uses_grid()


def test_refusals():
    with pytest.raises(ConfigError, match="unfold"):
        DeformableUnfold(2, "fast")
    with pytest.raises(ConfigError, match="3x3 or more, got 2x6"):
        DeformableUnfold(2)(paddle.ones([1, 2, 2, 6]), paddle.zeros([1, 18, 2, 6]))
