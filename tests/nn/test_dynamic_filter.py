"""DMNet's dynamic convolution: the original's outputs and gradients in float64, and a loop in NumPy."""

import json
from pathlib import Path

from paddle_dnl.errors import ConfigError
from paddle_dnl.nn.dynamic_filter import DynamicFilter, dynamic_depthwise_conv

import golden_seeds
import numpy as np
import paddle
import pytest

BLOCKS = Path(__file__).parents[1] / "data" / "golden" / "blocks"
META = json.loads((BLOCKS / "dcm.json").read_text())
GOLDEN = np.load(BLOCKS / "dcm.npz")
KEYS = {"running_mean": "_mean", "running_var": "_variance"}


def _our_name(theirs: str) -> str:
    """`dcm.input_redu_conv.bn.running_mean` -> `input_redu_conv._batch_norm._mean`."""
    parts = theirs.split(".")[1:]
    parts = ["_conv" if p == "conv" else "_batch_norm" if p == "bn" else KEYS.get(p, p) for p in parts]
    return ".".join(parts)


def _layer(case, implementation):
    spec = META["spec"]["fusion" if case["fusion"] else "plain"]
    layer = DynamicFilter(case["filter_size"], case["fusion"], 24, 8, conv_bias=False, implementation=implementation)
    layer.to(dtype="float64")
    state = {
        _our_name(n): v for n, v in golden_seeds.seeded_state(spec).items() if not n.endswith("num_batches_tracked")
    }
    assert set(state) == set(layer.state_dict())
    for key, tensor in layer.state_dict().items():
        tensor.set_value(state[key].astype(np.float64))
    layer.eval()
    return layer, {_our_name(n): n for n, _ in spec}


@pytest.mark.parametrize("implementation", ["grouped", "batch_free"])
@pytest.mark.parametrize("case", META["cases"], ids=lambda c: c["key"])
def test_original_values_and_gradients(case, implementation):
    key = case["key"]
    layer, names = _layer(case, implementation)
    x = paddle.to_tensor(golden_seeds.seeded_input(key, case["x_shape"]).astype(np.float64), stop_gradient=False)
    out = layer(x)
    np.testing.assert_allclose(out.numpy(), GOLDEN[f"{key}/out"], atol=1e-9)
    upstream = golden_seeds.seeded_input(f"grad:{key}", case["out_shape"]).astype(np.float64)
    (out * paddle.to_tensor(upstream)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), GOLDEN[f"{key}/grad_x"], atol=1e-8)
    checked = 0
    for name, parameter in layer.named_parameters():
        if f"{key}/grad/{names[name]}" in GOLDEN:
            np.testing.assert_allclose(
                parameter.grad.numpy(), GOLDEN[f"{key}/grad/{names[name]}"], atol=1e-8, err_msg=name
            )
            checked += 1
    assert checked >= 7


@pytest.mark.parametrize(
    "k, size", [(1, (4, 5)), (2, (4, 5)), (3, (2, 2)), (4, (6, 3)), (5, (9, 8)), (7, (3, 4)), (8, (3, 4))]
)
@pytest.mark.parametrize("implementation", ["grouped", "batch_free"])
def test_loop_in_numpy(k, size, implementation):
    """Even kernels, maps smaller than the kernel, batches: the extra zero of an even kernel is in front."""
    rng = np.random.default_rng(k)
    x, w = rng.normal(size=(3, 2, *size)), rng.normal(size=(3, 2, k, k))
    before, after = k // 2, (k - 1) // 2
    padded = np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)))
    wanted = np.zeros_like(x)
    for i in range(size[0]):
        for j in range(size[1]):
            wanted[:, :, i, j] = (padded[:, :, i : i + k, j : j + k] * w).sum((2, 3))
    found = dynamic_depthwise_conv(paddle.to_tensor(x), paddle.to_tensor(w), implementation)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)


def test_refusals():
    for size in (0, -3, 2.5, "3", True):
        with pytest.raises(ConfigError, match="expected positive integers"):
            DynamicFilter(size, False, 8, 8)
    with pytest.raises(ConfigError, match="dynamic_conv"):
        DynamicFilter(3, False, 8, 8, implementation="fast")
