"""DGMN2: the original block's outputs and gradients, options that change nothing, and refusals with their reason."""

import json
from pathlib import Path

from paddle_dnl.errors import ConfigError
from paddle_dnl.models.backbones.dgmn2 import DGMN2_Tiny, DGMN2Block
from paddle_dnl.models.semantic_fpn import SemanticFPN
from paddle_dnl.models.setr import DGMN2SETR

import golden_seeds
import numpy as np
import paddle
import pytest

BLOCKS = Path(__file__).parents[1] / "data" / "golden" / "blocks"
CASES = json.loads((BLOCKS / "dgmn2_block.json").read_text())["cases"]
GOLDEN = np.load(BLOCKS / "dgmn2_block.npz")
TRANSPOSED = ("qkv.weight", "proj.weight", "conv_offset.weight", "fc1.weight", "fc2.weight")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["key"])
def test_original_block(case):
    """Square, tall, wide, stretched and shrunk maps: the transposed height term and the table stretching are in it."""
    key = case["key"]
    block = DGMN2Block(case["dim"], case["heads"], case["mlp_ratio"], tuple(case["table_map"]), unfold="deform")
    state = {n[len(key) + 1 :]: v for n, v in golden_seeds.seeded_state(case["spec"]).items()}
    tensors = block.state_dict()
    assert set(state) == set(tensors)
    for name, value in state.items():
        tensors[name].set_value((value.T if name.endswith(TRANSPOSED) else value).astype("float32"))
    x = paddle.to_tensor(golden_seeds.seeded_input(key, case["x_shape"]).astype("float32"), stop_gradient=False)
    out = block(x, case["H"], case["W"])
    wanted = GOLDEN[f"{key}/out"]
    np.testing.assert_allclose(out.numpy(), wanted, atol=2e-5 * max(1, np.abs(wanted).max()))
    upstream = golden_seeds.seeded_input(f"grad:{key}", case["x_shape"]).astype("float32")
    (out * paddle.to_tensor(upstream)).sum().backward()
    checked = 0
    for name, parameter in block.named_parameters():
        if f"{key}/grad/{key}.{name}" not in GOLDEN:
            continue
        checked += 1
        golden = GOLDEN[f"{key}/grad/{key}.{name}"]
        found = parameter.grad.numpy()
        found = found.T if name.endswith(TRANSPOSED) else found
        np.testing.assert_allclose(found, golden, atol=2e-3 * np.abs(golden).max() + 1e-5, err_msg=name)
    assert checked >= 2


def test_recompute_is_exactly_equal():
    x = paddle.randn([1, 3, 65, 65])
    found = []
    plain, again = DGMN2_Tiny(output="neck"), DGMN2_Tiny(output="neck", recompute=True)
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


def test_square_and_free_upsampling_agree_on_square_images():
    square = DGMN2SETR(5, DGMN2_Tiny(output="decode_head"), decoder="pup", image_size=33)
    free = DGMN2SETR(5, DGMN2_Tiny(output="decode_head"), decoder="pup", image_size=33, square_upsample=False)
    free.set_state_dict({k: v.numpy() for k, v in square.state_dict().items()})
    square.eval(), free.eval()
    with paddle.no_grad():
        x = paddle.randn([1, 3, 33, 33])
        np.testing.assert_allclose(square(x)[0].numpy(), free(x)[0].numpy(), atol=1e-6)
        wide = paddle.randn([1, 3, 33, 65])
        assert square(wide)[0].shape == free(wide)[0].shape == [1, 5, 33, 65]
        assert float((square(wide)[0] - free(wide)[0]).abs().max()) > 1e-4


@pytest.mark.parametrize("make, message", [
    (lambda: SemanticFPN(5, DGMN2_Tiny(output="decode_head")), "set `output: neck`"),
    (lambda: DGMN2SETR(5, DGMN2_Tiny(output="neck"), decoder="naive"), "needs 'decode_head'"),
    (lambda: DGMN2SETR(5, DGMN2_Tiny(output="decode_head"), decoder="mla"), "needs 'decode_head_multi'"),
    (lambda: DGMN2SETR(5, DGMN2_Tiny(), decoder="aspp"), "none of naive, pup, mla"),
    (lambda: DGMN2SETR(5, DGMN2_Tiny(), decoder="pup", image_size=16), "17 pixels or more"),
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
