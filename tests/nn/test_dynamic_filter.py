# SPDX-License-Identifier: Apache-2.0
"""The dynamic convolution of DMNet against stored float64 outputs of mmsegmentation's and against a NumPy sum."""

import json
from pathlib import Path

from paddle_dnl.errors import ConfigError
from paddle_dnl.nn.dynamic_filter import DynamicFilter, dynamic_depthwise_conv, same_padding
from paddle_dnl.nn.pooling import adaptive_avg_pool

import golden_seeds
import numpy as np
import paddle
import pytest

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "blocks"
INDEX = json.loads((GOLDEN / "dcm.json").read_text())
IMPLEMENTATIONS = ("grouped", "batch_free")


pytestmark = pytest.mark.usefixtures("float64")


def our_name(torch_name: str) -> str:
    name = torch_name.removeprefix("dcm.")
    for old, new in (
        (".conv.", "._conv."),
        (".bn.", "._batch_norm."),
        ("running_mean", "_mean"),
        ("running_var", "_variance"),
    ):
        name = name.replace(old, new)
    return name


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("case", INDEX["cases"], ids=[case["key"] for case in INDEX["cases"]])
def test_equals_the_published_module(case, implementation):
    """Kernels 1 to 7, odd and even, on maps larger and smaller than the kernel; value and every gradient."""
    spec = INDEX["spec"]["fusion" if case["fusion"] else "plain"]
    module = DynamicFilter(case["filter_size"], case["fusion"], 24, 8, conv_bias=False, implementation=implementation)
    state = {our_name(n): a for n, a in golden_seeds.seeded_state(spec).items() if not n.endswith("tracked")}
    assert set(state) == set(module.state_dict())
    module.set_state_dict({name: paddle.to_tensor(a.astype("float64")) for name, a in state.items()})
    module.eval()
    key = case["key"]
    x = paddle.to_tensor(golden_seeds.seeded_input(key, case["x_shape"]).astype("float64"), stop_gradient=False)
    out = module(x)
    out.backward(paddle.to_tensor(golden_seeds.seeded_input(f"grad:{key}", case["out_shape"]).astype("float64")))
    stored = np.load(GOLDEN / "dcm.npz")
    np.testing.assert_allclose(out.numpy(), stored[f"{key}/out"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(x.grad.numpy(), stored[f"{key}/grad_x"], rtol=0, atol=1e-8)
    names = [name for name in stored.files if name.startswith(f"{key}/grad/")]
    ours = {name: p for name, p in module.named_parameters() if not p.stop_gradient}
    assert len(names) == len(ours)
    for name in names:
        grad = ours[our_name(name.split("/grad/")[1])].grad.numpy()
        np.testing.assert_allclose(grad, stored[name], rtol=0, atol=1e-8, err_msg=name)


def np_dynamic(x, filters):
    """Every product written out; beyond the map is zero, and an even kernel looks one further back than ahead."""
    (_, _, h, w), k = x.shape, filters.shape[2]
    out = np.zeros_like(x)
    for i, j in np.ndindex(h, w):
        for r, s in np.ndindex(k, k):
            y, z = i + r - k // 2, j + s - k // 2
            if 0 <= y < h and 0 <= z < w:
                out[:, :, i, j] += filters[:, :, r, s] * x[:, :, y, z]
    return out


@pytest.mark.parametrize("implementation", [*IMPLEMENTATIONS, "auto"])
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, 7, 10])
@pytest.mark.parametrize("size", [(6, 5), (2, 3), (1, 1)], ids=str)
def test_is_the_sum_it_says(size, k, implementation):
    rng = np.random.default_rng(k)
    x, filters = rng.normal(size=(3, 4, *size)), rng.normal(size=(3, 4, k, k))
    out = dynamic_depthwise_conv(paddle.to_tensor(x), paddle.to_tensor(filters), implementation)
    np.testing.assert_allclose(out.numpy(), np_dynamic(x, filters), rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [2, 3, 5, 6, 7])
def test_gradients_are_those_of_the_sum(k):
    """The sum is linear in each argument, so <out(dx), g> = <dx, grad_x>, and likewise for the filters."""
    rng = np.random.default_rng(k)
    x, dx = rng.normal(size=(2, 2, 3, 5, 6))
    filters, df = rng.normal(size=(2, 2, 3, k, k))
    g = rng.normal(size=x.shape)
    for implementation in IMPLEMENTATIONS:
        a, f = (paddle.to_tensor(value, stop_gradient=False) for value in (x, filters))
        dynamic_depthwise_conv(a, f, implementation).backward(paddle.to_tensor(g))
        assert (dx * a.grad.numpy()).sum() == pytest.approx((np_dynamic(dx, filters) * g).sum(), rel=1e-10)
        assert (df * f.grad.numpy()).sum() == pytest.approx((np_dynamic(x, df) * g).sum(), rel=1e-10)


def test_samples_do_not_mix():
    """Filters come from the sample itself: a batch gives what its samples give alone."""
    module = DynamicFilter(3, True, 6, 4)
    module.eval()
    x = paddle.randn([3, 6, 7, 9])
    together = module(x).numpy()
    for i in range(3):
        np.testing.assert_allclose(together[i : i + 1], module(x[i : i + 1]).numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("bins", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("size", [(12, 17), (5, 6), (2, 3)], ids=str)
def test_pooling_windows(bins, size):
    x = np.random.default_rng(bins).normal(size=(2, 3, *size))
    expected = np.empty((2, 3, bins, bins))
    for i, j in np.ndindex(bins, bins):
        rows, columns = (slice(p * n // bins, -(-(p + 1) * n // bins)) for p, n in zip((i, j), size, strict=True))
        expected[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))
    np.testing.assert_allclose(adaptive_avg_pool(paddle.to_tensor(x), bins).numpy(), expected, rtol=0, atol=1e-12)


def test_padding_keeps_the_size():
    for k in range(1, 12):
        before, after = same_padding(k)
        assert before + after == k - 1 and before - after in (0, 1)


@pytest.mark.parametrize("size", [0, -1, True, 2.0, "3", None])
def test_filter_sizes_that_are_none_are_refused(size):
    with pytest.raises(ConfigError, match="filter_sizes: expected positive integers"):
        DynamicFilter(size, False, 4, 4)


def test_unknown_implementation_is_refused():
    with pytest.raises(ConfigError, match="dynamic_conv: 'fast' is none of auto, grouped, batch_free"):
        DynamicFilter(3, False, 4, 4, implementation="fast")
