# SPDX-License-Identifier: Apache-2.0
"""The three SETR decoders of DGMN2: square maps as published, and what is refused. Values: tests/golden."""

from paddle_dnl.errors import ConfigError
from paddle_dnl.models.backbones.dgmn2 import DGMN2_Tiny
from paddle_dnl.models.semantic_fpn import SemanticFPN
from paddle_dnl.models.setr import BACKBONE_OUTPUT, DGMN2SETR

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn

DECODERS = tuple(BACKBONE_OUTPUT)


class Maps(nn.Layer):
    """Stands for a DGMN2: given maps instead of computed ones."""

    minimum_image = 17

    def __init__(self, decoder: str, size: tuple[int, int]):
        super().__init__()
        self.output = BACKBONE_OUTPUT[decoder]
        self.feat_channels = [6, 6, 6, 6] if decoder == "mla" else [6]
        height, width = size
        first = [[1, 6, 2 * height, 2 * width]] if decoder == "mla" else []
        self.maps = [paddle.randn(s) for s in first + [[1, 6, height, width]] * (3 if first else 1)]

    def forward(self, _):
        return self.maps


def _pair(decoder: str, size: tuple[int, int]):
    """The published form and the one that follows the image's shape, with equal weights."""
    backbone = Maps(decoder, size)
    models = [DGMN2SETR(5, backbone, decoder, image_size=33, square_upsample=square) for square in (True, False)]
    models[1].set_state_dict({k: v.numpy() for k, v in models[0].state_dict().items()})
    for model in models:
        model.eval()
    return models


def _sizes_inside(model, image) -> list[list[int]]:
    """Output sizes of all convolutions, then of the head and of the model."""
    sizes = []
    for layer in model.decode_head.sublayers():
        if isinstance(layer, nn.Conv2D):
            layer.register_forward_post_hook(lambda _, __, out: sizes.append(out.shape[2:]))
    model.decode_head.register_forward_post_hook(lambda _, __, out: sizes.append(out.shape[2:]))
    with paddle.no_grad():
        (logits,) = model(image)
    return [*sizes, logits.shape[2:]]


@pytest.mark.parametrize(
    "decoder, square, free",
    [
        ("naive", [[3, 5], [33, 33]], [[3, 5], [3, 5]]),
        ("pup", [[3, 5], [10, 10], [20, 20], [40, 40], [80, 80]], [[3, 5], [6, 10], [12, 20], [24, 40], [48, 80]]),
        ("mla", [[6, 10]] * 2 + [[3, 5]] * 6 + [[20, 20], [33, 33]], [[6, 10]] * 2 + [[3, 5]] * 6 + [[12, 20]] * 2),
    ],
)
def test_published_maps_are_square_and_free_ones_follow_the_image(decoder, square, free):
    """The published code enlarges to (2 W, 2 W); naive and mla end on the training crop. Logits: size of the image."""
    image = paddle.zeros([1, 3, 24, 40])
    for model, expected in zip(_pair(decoder, (3, 5)), (square, free), strict=True):
        assert _sizes_inside(model, image) == [*expected, [24, 40]]


def test_forms_agree_for_pup_on_square_images_only():
    for size, equal in (((5, 5), True), ((5, 9), False)):
        square, free = _pair("pup", size)
        with paddle.no_grad():
            image = paddle.zeros([1, 3, 8 * size[0] - 7, 8 * size[1] - 7])
            difference = float((square(image)[0] - free(image)[0]).abs().max())
        assert (difference < 1e-6) == equal


def test_naive_is_a_classifier_and_two_resizes():
    model, _ = _pair("naive", (3, 5))
    x = model.backbone.maps[0]
    with paddle.no_grad():
        logits = model(paddle.zeros([1, 3, 24, 40]))[0].numpy()
        weight, bias = model.decode_head.conv_seg.weight.numpy()[:, :, 0, 0], model.decode_head.conv_seg.bias.numpy()
    small = np.einsum("kc,bchw->bkhw", weight, x.numpy()) + bias[:, None, None]

    def linear(a, axis, length):  # corners aligned
        position = np.arange(length) * (a.shape[axis] - 1) / (length - 1)
        low = np.minimum(position.astype(int), a.shape[axis] - 2)
        shape = [-1 if i == axis else 1 for i in range(4)]
        part = (position - low).reshape(shape)
        return np.take(a, low, axis) * (1 - part) + np.take(a, low + 1, axis) * part

    expected = linear(linear(linear(linear(small, 2, 33), 3, 33), 2, 24), 3, 40)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("decoder", DECODERS)
def test_everything_learns(decoder):
    model = DGMN2SETR(5, DGMN2_Tiny(output=BACKBONE_OUTPUT[decoder]), decoder, image_size=33)
    model.train()
    (logits,) = model(paddle.randn([2, 3, 33, 49]))
    F.cross_entropy(logits.transpose([0, 2, 3, 1]), paddle.randint(0, 5, [2, 33, 49])).backward()
    dead = [n for n, p in model.named_parameters() if not p.stop_gradient and p.grad is None]
    assert not dead
    assert all(np.isfinite(p.grad.numpy()).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("make, message", [
    (lambda: DGMN2SETR(5, DGMN2_Tiny(output="neck"), decoder="naive"), "'naive' needs 'decode_head', .* has 'neck'"),
    (lambda: DGMN2SETR(5, DGMN2_Tiny(output="decode_head"), decoder="mla"), "needs 'decode_head_multi'"),
    (lambda: DGMN2SETR(5, DGMN2_Tiny(output="decode_head_multi"), decoder="pup"), "needs 'decode_head'"),
    (lambda: DGMN2SETR(5, nn.Conv2D(3, 3, 1), decoder="pup"), "Conv2D has None"),
    (lambda: DGMN2SETR(5, DGMN2_Tiny(), decoder="aspp"), "none of naive, pup, mla"),
    (lambda: DGMN2SETR(5, DGMN2_Tiny(), decoder="pup", image_size=16), "image_size: expected 17 pixels or more, got 16"),
    (lambda: DGMN2SETR(5, DGMN2_Tiny(), decoder="pup", image_size="769"), "got '769'"),
    (lambda: SemanticFPN(5, DGMN2_Tiny(output="decode_head_multi")), "strides 4, 8, 16, 32"),
])  # fmt: skip
def test_refusals(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
