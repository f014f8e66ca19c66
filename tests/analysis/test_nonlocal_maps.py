# SPDX-License-Identifier: Apache-2.0
"""Rows of attention against the full map in NumPy float64, from the block's own query and key convolutions."""

import tracemalloc

from paddle_dnl.analysis.geometry import Geometry
from paddle_dnl.analysis.nonlocal_maps import BlockAttention, block_attention, nonlocal_attention
from paddle_dnl.analysis.render import _on_grid
from paddle_dnl.errors import UsageError
from paddle_dnl.models.backbones.resnet import ResNet18
from paddle_dnl.models.dmnet import DMNet
from paddle_dnl.models.dnlnet import DNLNet
from paddle_dnl.nn.disentangled_nonlocal import DIALECTS, DisentangledNonLocal2D

import numpy as np
import paddle
import pytest

NONLOCAL = {"whitening": "none", "unary": False, "temperature": 1.0}
VARIANTS = {
    "dnl": {},
    "official": {**DIALECTS["official"], "whitening": "global"},
    "standardised": {"whitening": "in"},
    "nonlocal": NONLOCAL,
    "nonlocal gaussian": {**NONLOCAL, "mode": "gaussian"},
    "add only": {"unary_key": "shared"},
    "separate key": {"combine": "multiply"},
    "pairwise": {"unary": False},
    "unary": {"pairwise": False},
    "dot product": {"mode": "dot_product"},
    "concatenation": {"mode": "concatenation", "concat_norm": True},
    "pooled": {"sub_sample": True},
    "streaming": {"attention": "streaming"},
}


def softmax(a):
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def whiten(a, kind):
    axes = {"spatial": 0, "in": 0, "global": (0, 1), "none": None}[kind]
    if axes is None:
        return a
    centred = a - a.mean(axes, keepdims=True)
    return centred / np.sqrt(a.var(axes, ddof=1, keepdims=True) + 1e-5) if kind == "in" else centred


def full_maps(block, x):
    """(pairwise [N, M], unary [M], weights [N, M]) written out, from hooks on the block's convolutions."""
    seen, hooks = {}, []
    for name in ("theta", "phi", "conv_mask", "g"):
        if hasattr(block, name):
            hook = lambda layer, inputs, out, name=name: seen.update({name: out})  # noqa: E731
            hooks.append(getattr(block, name).register_forward_post_hook(hook))
    block(x)
    for hook in hooks:
        hook.remove()
    flat = {n: t.numpy()[0].reshape(t.shape[1], -1).T.astype(np.float64) for n, t in seen.items()}
    if block.mode == "gaussian":
        flat["theta"] = flat["phi"] = x.numpy()[0].reshape(x.shape[1], -1).T.astype(np.float64)
    unary = softmax(flat["conv_mask"][:, 0]) if "conv_mask" in flat else None
    logits = flat["conv_mask"][:, 0] if "conv_mask" in flat else None
    if not block.pairwise:
        return None, unary, np.repeat(unary[None], x.shape[2] * x.shape[3], 0), flat["g"]
    if block.unary_key == "shared":
        logits = flat["theta"].mean(0) @ flat["phi"].T
        unary = softmax(logits)
    q, k = whiten(flat["theta"], block.whitening), whiten(flat["phi"], block.whitening)
    if block.mode == "concatenation":
        weight = block.concat_project._conv.weight.numpy().reshape(-1).astype(np.float64)
        norm, half = block.concat_project._batch_norm, len(weight) // 2
        pair = (q @ weight[:half])[:, None] + (k @ weight[half:])[None]
        pair = (pair - norm._mean.numpy()) / np.sqrt(norm._variance.numpy() + 1e-5)
        pair = np.maximum(pair * norm.weight.numpy() + norm.bias.numpy(), 0) / len(k)
    elif block.mode == "dot_product":
        pair = q @ k.T / len(k)
    else:
        pair = softmax(q @ k.T * block.scale)
    if block.combine == "multiply":
        weights = softmax(q @ k.T * block.scale + logits)
    else:
        gate = block.gamma.numpy().item() if hasattr(block, "gamma") else 1.0
        weights = gate * pair + (0 if unary is None else unary)
    return pair, unary, weights, flat["g"]


def make_block(variant, channels=8):
    block = DisentangledNonLocal2D(channels, **{"temperature": 0.5, **VARIANTS[variant]})
    rng = np.random.default_rng(0)
    for name, tensor in block.state_dict().items():
        values = rng.uniform(0.5, 1.5, tensor.shape) if name.endswith("_variance") else rng.normal(0, 0.4, tensor.shape)
        tensor.set_value(values.astype("float32"))
    block.eval()
    return block


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_equal_the_full_map_and_the_weights_make_the_output(variant):
    block = make_block(variant)
    x = paddle.to_tensor(np.random.default_rng(1).normal(0, 1, (1, 8, 4, 6)).astype("float32"))
    pair, unary, weights, values = full_maps(block, x)
    found = block_attention("block", block, x)
    positions = [0, 23, 7, 7]
    if block.pool is not None:  # a pooled key's weight lies evenly on its four pixels
        spread = lambda a: (a.reshape(-1, 2, 3) / 4).repeat(2, 1).repeat(2, 2).reshape(-1, 24)  # noqa: E731
        pair, unary, wide = spread(pair), spread(unary)[0], spread(weights)
    else:
        wide = weights
    if pair is not None:
        np.testing.assert_allclose(found.pairwise(positions).reshape(4, -1), pair[positions], rtol=0, atol=1e-5)
    if unary is not None:
        np.testing.assert_allclose(found.unary().reshape(-1), unary, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.weights(positions).reshape(4, -1), wide[positions], rtol=0, atol=1e-5)

    if block.pool is None:
        y = found.weights(range(24)).reshape(24, 24) @ values
    else:
        y = weights @ values
    y = paddle.to_tensor(y.T.reshape(1, -1, 4, 6).astype("float32"))
    y = block.conv_out(y) if block.has_output else y
    np.testing.assert_allclose((x + y).numpy(), block(x).numpy(), rtol=0, atol=2e-4)


@pytest.mark.parametrize("variant", ["nonlocal", "nonlocal gaussian"])
def test_plain_block_taken_apart_has_the_same_weights(variant):
    block = make_block(variant)
    x = paddle.to_tensor(np.random.default_rng(1).normal(0.3, 1, (1, 8, 4, 6)).astype("float32"))
    whole = block_attention("block", block, x)
    parts = whole.factors()
    assert parts.has_unary and not whole.has_unary
    np.testing.assert_allclose(parts.weights(range(24)), whole.weights(range(24)), atol=1e-12)
    product = parts.pairwise(range(24)) * parts.unary()
    product /= product.sum((1, 2), keepdims=True)
    np.testing.assert_allclose(product, whole.weights(range(24)), atol=1e-12)
    assert np.abs(parts.pairwise([3]) - whole.pairwise([3])).max() > 1e-3


def test_blocks_that_hide_nothing_stay_as_they_are():
    x = paddle.to_tensor(np.random.default_rng(1).normal(0.3, 1, (1, 8, 4, 6)).astype("float32"))
    for variant in ("dnl", "pairwise", "separate key", "dot product"):
        whole = block_attention("block", make_block(variant), x)
        assert whole.factors() is whole


def test_model_is_left_as_it_was_and_large_maps_stay_rows():
    model = DNLNet(5, ResNet18(output_stride=8))
    model.train()
    attention = next(nonlocal_attention(model, paddle.randn([1, 3, 65, 97])))
    assert attention.size == (9, 13) and attention.name == "head.dnl_block"
    assert model.training and not model.head.dnl_block._forward_pre_hooks
    np.testing.assert_allclose(attention.weights([5]).sum(), 2, atol=1e-9)
    with pytest.raises(UsageError, match="position"):
        attention.pairwise([117])
    with pytest.raises(UsageError, match="batch"):
        next(nonlocal_attention(model, paddle.randn([2, 3, 65, 97])))
    with pytest.raises(UsageError, match="no non-local"):
        next(nonlocal_attention(DMNet(5, ResNet18(output_stride=8)), paddle.randn([1, 3, 65, 97])))


def test_a_whole_cityscapes_image_is_worked_through_in_rows():
    """128 x 256 positions, for which the full map has 8 GiB: 512 queries stay below 300 MiB."""
    rng, count = np.random.default_rng(0), 128 * 256
    query, key = rng.normal(size=(2, count, 8))
    attention = BlockAttention("block", (128, 256), "embedded_gaussian", "add", 1.0, query, key, rng.normal(size=count))
    geometry = Geometry((1024, 2048), (128, 256))
    geometry.cells()
    tracemalloc.start()
    maps = _on_grid(attention.pairwise, (16, 32), (32, 64), geometry)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert maps.shape == (16, 32, 32, 64) and peak < 300 << 20
    np.testing.assert_allclose(maps.sum((2, 3)), 1, atol=1e-9)
    row, column = (3 * 8 + 4), (5 * 8 + 4)
    weights = softmax(query[row * 256 + column] @ key.T).reshape(32, 4, 64, 4).sum((1, 3))
    np.testing.assert_allclose(maps[3, 5], weights, atol=1e-12)


# ---- pixels and positions ---------------------------------------------------------------------------


def test_cells_without_transforms():
    geometry = Geometry((4, 6), (2, 3))
    np.testing.assert_array_equal(geometry.cells(), [[0, 0, 1, 1, 2, 2]] * 2 + [[3, 3, 4, 4, 5, 5]] * 2)
    # Pixels' centres count: 0.3, 0.9, 1.5, 2.1, 2.7 positions from the border.
    np.testing.assert_array_equal(Geometry((1, 5), (1, 3)).cells(), [[0, 0, 1, 2, 2]])
    assert geometry.position(x=5, y=0) == 2 and geometry.position(x=0, y=3) == 3
    for x, y in ((6, 0), (0, 4), (-1, 0)):
        with pytest.raises(UsageError, match="outside"):
            geometry.position(x, y)


def test_cells_with_aligned_corners_are_the_nearest_centres():
    # 5 pixels, 3 positions at pixels 0, 2, 4: pixel 1 is halfway and goes to the even one, 0; pixel 3 to 2.
    np.testing.assert_array_equal(Geometry((1, 5), (1, 3), align_corners=True).cells(), [[0, 0, 1, 2, 2]])


def test_cells_after_resize_and_padding():
    # 4x4 enlarged to 8x8, then padded to 8x12; the map has 4 pixels of the input per position.
    geometry = Geometry((8, 12), (2, 3), [("resize", (4, 4)), ("padding", (8, 8))])
    np.testing.assert_array_equal(geometry.cells(), [[0, 0, 1, 1]] * 2 + [[3, 3, 4, 4]] * 2)
    assert geometry.enlarge(np.ones((2, 2, 3))).shape == (2, 4, 4)


def test_regrid_keeps_shares_and_leaves_padding_out():
    # Three positions of 2, 2 and 1 pixels (the last one's other pixel is padding) onto an even grid of two.
    geometry = Geometry((1, 6), (1, 3), [("padding", (1, 5))])
    assert geometry.extent() == (1, 3)
    found = geometry.regrid(np.array([[[1.0, 10.0, 100.0]], [[0.0, 2.0, 0.0]]]), (1, 2))
    # Pixels 0, 1, 2 go left, 3, 4 right: the middle position is halved.
    np.testing.assert_allclose(found, [[[6.0, 105.0]], [[1.0, 1.0]]])
    same = np.random.default_rng(0).uniform(0, 1, (2, 3, 4))
    np.testing.assert_allclose(Geometry((6, 8), (3, 4)).regrid(same, (3, 4)), same)


@pytest.mark.parametrize("align", [False, True])
def test_pixels_are_where_enlarging_puts_a_position(align):
    geometry = Geometry((33, 65), (5, 9), align_corners=align)
    bump = np.zeros((1, 5, 9))
    bump[0, 2, 4] = 1
    y, x = np.unravel_index(geometry.enlarge(bump)[0].argmax(), (33, 65))
    found_x, found_y = geometry.pixels(np.array([2.0]), np.array([4.0]))
    assert abs(found_x[0] - x) <= 1 and abs(found_y[0] - y) <= 1
    assert geometry.position(x, y) == 2 * 9 + 4
