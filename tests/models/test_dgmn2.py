# SPDX-License-Identifier: Apache-2.0
"""DGMN2 backbone: the original block's outputs and gradients, options that change nothing, and refusals with their reason."""

import json
from pathlib import Path

from paddle_dnl.errors import ConfigError
from paddle_dnl.models.backbones.dgmn2 import DGMN2_Small, DGMN2_Tiny, DGMN2Block, DropPath

import golden_seeds
import numpy as np
import paddle
import pytest

BLOCKS = Path(__file__).parents[1] / "data" / "golden" / "blocks"
CASES = json.loads((BLOCKS / "dgmn2_block.json").read_text())["cases"]
GOLDEN = np.load(BLOCKS / "dgmn2_block.npz")
TRANSPOSED = ("qkv.weight", "proj.weight", "conv_offset.weight", "fc1.weight", "fc2.weight")


def _turned(name: str, value: np.ndarray) -> np.ndarray:
    """PyTorch's layout of a block's parameter as ours, or the other way round."""
    return value.T if name.endswith(TRANSPOSED) else value


@pytest.mark.parametrize("unfold", ["deform", "grid"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c["key"])
def test_original_block(case, unfold, float64):
    """Square, tall, wide, stretched and shrunk maps: the transposed height term and the table stretching are in it."""
    key = case["key"]
    block = DGMN2Block(case["dim"], case["heads"], case["mlp_ratio"], tuple(case["table_map"]), unfold=unfold)
    state = {n[len(key) + 1 :]: v for n, v in golden_seeds.seeded_state(case["spec"]).items()}
    tensors = block.state_dict()
    assert set(state) == set(tensors)
    for name, value in state.items():
        tensors[name].set_value(_turned(name, value).astype("float64"))
    seen = {}
    block.attn.register_forward_post_hook(lambda _, __, out: seen.update(attn_out=out.numpy()))
    block.attn.pos_emb.register_forward_post_hook(lambda _, __, out: seen.update(pos=out.numpy()))
    x = paddle.to_tensor(golden_seeds.seeded_input(key, case["x_shape"]).astype("float64"), stop_gradient=False)
    out = block(x, case["H"], case["W"])
    out.backward(paddle.to_tensor(golden_seeds.seeded_input(f"grad:{key}", case["x_shape"]).astype("float64")))
    for name, found in (
        ("out", out.numpy()),
        ("attn_out", seen["attn_out"]),
        ("pos_logits", seen["pos"].transpose(0, 2, 3, 1)),
        ("grad_x", x.grad.numpy()),
    ):
        np.testing.assert_allclose(found, GOLDEN[f"{key}/{name}"], rtol=0, atol=1e-9, err_msg=name)
    compared = 0
    for name, parameter in block.named_parameters():
        if f"{key}/grad/{key}.{name}" in GOLDEN:  # of the widest block the two smallest are stored
            found = _turned(name, parameter.grad.numpy())
            np.testing.assert_allclose(found, GOLDEN[f"{key}/grad/{key}.{name}"], rtol=0, atol=1e-8, err_msg=name)
            compared += 1
    assert compared == sum(name.startswith(f"{key}/grad/") for name in GOLDEN) >= 2


@pytest.mark.parametrize("settings", [{}, {"drop_path_rate": 0.4, "unfold": "deform"}], ids=["published", "drop-path"])
def test_recompute_is_exactly_equal(settings):
    """Also with drawn numbers: the second pass must draw the first one's."""
    settings = {"output": "neck", **settings}
    x = paddle.randn([2, 3, 65, 65])
    found = []
    plain, again = DGMN2_Tiny(**settings), DGMN2_Tiny(recompute=True, **settings)
    again.set_state_dict({k: v.numpy() for k, v in plain.state_dict().items()})
    for model in (plain, again):
        model.train()
        paddle.seed(0)
        sum((f * f).mean() for f in model(x)).backward()
        found.append({n: p.grad.numpy() for n, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() and len(found[0]) > 100
    for name, gradient in found[0].items():
        np.testing.assert_array_equal(gradient, found[1][name], err_msg=name)


@pytest.mark.parametrize(
    "output, strides, channels",
    [
        ("decode_head", [8], [512]),
        ("decode_head_multi", [4, 8, 8, 8], [64, 128, 320, 512]),
        ("neck", [4, 8, 16, 32], [64, 128, 320, 512]),
    ],
)
def test_output_modes(output, strides, channels):
    model = DGMN2_Tiny(output=output)
    model.eval()
    with paddle.no_grad():
        maps = model(paddle.randn([1, 3, 96, 128]))
    assert [f.shape[1] for f in maps] == channels == model.feat_channels
    assert [f.shape[2:] for f in maps] == [[96 // s, 128 // s] for s in strides]


@pytest.mark.parametrize("size", [(65, 65), (66, 71), (97, 129)], ids=str)
def test_any_size(size):
    """A stride-2 convolution gives floor((n - 1) / 2) + 1."""
    model = DGMN2_Tiny(output="neck")
    model.eval()
    with paddle.no_grad():
        maps = model(paddle.randn([1, 3, *size]))
    assert [f.shape[2:] for f in maps] == [[(n - 1) // s + 1 for n in size] for s in (4, 8, 16, 32)]


@pytest.mark.parametrize("backbone, count", [(DGMN2_Tiny, 11_588_464), (DGMN2_Small, 20_455_360)])
def test_parameter_counts(backbone, count):
    """The published table; the segmentors of all sizes are counted with their configurations."""
    model = backbone()
    assert sum(int(np.prod(p.shape)) for p in model.parameters() if not p.stop_gradient) == count
    assert not [key for key in model.state_dict() if "kernels" in key]


@pytest.mark.parametrize("unfold", ["deform", "grid"])
@pytest.mark.parametrize("damage", [float("nan"), float("inf"), 1e38])
def test_damaged_tokens_end_nothing(unfold, damage):
    """They give NaN offsets and a NaN loss, which the trainer reports; the process lives."""
    block = DGMN2Block(64, 1, 8, (56, 56), unfold=unfold)
    x = paddle.randn([1, 30, 64])
    x[0, 7, 3] = damage
    out = block(x, 5, 6)
    assert not np.isfinite(out.numpy()).all() or damage == 1e38
    out.sum().backward()
    assert block.attn.conv_offset.weight.grad is not None


def test_drop_path_only_in_training():
    paddle.seed(0)
    model = DGMN2_Tiny(drop_path_rate=0.5)
    x = paddle.randn([2, 3, 33, 33])
    with paddle.no_grad():
        model.eval()
        np.testing.assert_array_equal(model(x)[0].numpy(), model(x)[0].numpy())
        for layer in model.sublayers(include_self=True):
            layer.training = not isinstance(layer, paddle.nn.BatchNorm2D)
        assert float((model(x)[0] - model(x)[0]).abs().max()) > 1e-4


@pytest.mark.parametrize("mode", ["sample", "batch"])
def test_drop_path_keeps_the_expectation(mode):
    paddle.seed(1)
    layer, x = DropPath(0.25, mode), paddle.ones([8, 3, 2])
    draws = np.stack([layer(x).numpy()[:, 0, 0] for _ in range(400)])
    assert set(np.unique(draws)) == {np.float32(0), np.float32(1 / 0.75)}
    assert draws.mean() == pytest.approx(1, abs=0.06)
    assert ((draws == draws[:, :1]).all(axis=1).mean() > 0.99) == (mode == "batch")


@pytest.mark.parametrize("make, message", [
    (lambda: DGMN2_Tiny(output="heads"), "DGMN2.output"),
    (lambda: DGMN2_Tiny(drop_path_rate=1.0), "drop_path_rate"),
    (lambda: DGMN2_Tiny(drop_path_mode="all"), "drop_path_mode"),
    (lambda: DGMN2_Tiny(unfold="fast"), "unfold"),
    (lambda: DGMN2_Tiny(output="neck")(paddle.zeros([1, 3, 64, 65])), "65 pixels or more"),
    (lambda: DGMN2_Tiny()(paddle.zeros([1, 3, 16, 17])), "17 pixels or more"),
])  # fmt: skip
def test_refusals(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
