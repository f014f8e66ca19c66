"""Whole, sliding, multi-scale and flipped inference against NumPy and against paddleseg's own functions."""

from paddle_dnl.engine.inference import infer, infer_augmented, restore, window_starts
from paddle_dnl.errors import UsageError

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddleseg.core import infer as paddleseg_infer


class Net(paddle.nn.Layer):
    """Not equivariant to anything: a convolution, and a term that knows the place inside the window."""

    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 4, 3, padding=1)

    def forward(self, x):
        ramp = paddle.linspace(0, 1, x.shape[3]).reshape([1, 1, 1, -1])
        return [self.conv(x) + ramp, None]


@pytest.fixture
def net():
    model = Net()
    model.eval()
    return model


IMAGE = np.random.default_rng(0).normal(size=(1, 3, 21, 34)).astype("float32")


@pytest.mark.parametrize("length, window, stride, starts", [
    (10, 10, 3, [0]), (8, 10, 3, [0]), (11, 10, 3, [0, 1]), (20, 8, 5, [0, 5, 10, 12]), (18, 8, 5, [0, 5, 10]),
])  # fmt: skip
def test_window_starts(length, window, stride, starts):
    assert window_starts(length, window, stride) == starts


def test_slide_is_the_mean_of_windows(net):
    found = infer(net, paddle.to_tensor(IMAGE), is_slide=True, crop_size=(16, 12), stride=(9, 7)).numpy()
    total, count = np.zeros((1, 4, 21, 34)), np.zeros((1, 1, 21, 34))
    for y in (0, 7, 9):
        for x in (0, 9, 18):
            window = np.ascontiguousarray(IMAGE[:, :, y : y + 12, x : x + 16])
            total[:, :, y : y + 12, x : x + 16] += net(paddle.to_tensor(window))[0].numpy()
            count[:, :, y : y + 12, x : x + 16] += 1
    np.testing.assert_allclose(found, total / count, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("crop, stride", [((16, 12), (9, 7)), ((100, 100), (50, 50)), ((34, 12), (34, 6))])
def test_slide_against_paddleseg(net, crop, stride):
    image = paddle.to_tensor(IMAGE)
    wanted = paddleseg_infer.slide_inference(net, image, crop, stride).numpy()
    found = infer(net, image, is_slide=True, crop_size=crop, stride=stride).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_logits_rule_against_paddleseg(net):
    image = paddle.to_tensor(IMAGE)
    info = [("resize", (40, 60)), ("padding", (21, 30))]
    settings = {"scales": [0.5, 1.0, 1.75], "flip_horizontal": True, "flip_vertical": True}
    _, wanted = paddleseg_infer.aug_inference(net, image, info, **settings)
    found = infer_augmented(net, image, info, **settings)
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)


def _numpy_bilinear(x, size):
    """Bilinear, half-pixel centres, in NumPy."""
    out = x
    for axis, new in ((2, size[0]), (3, size[1])):
        old = out.shape[axis]
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(at).astype(int)
        high, share = np.minimum(low + 1, old - 1), at - low
        shape = [1, 1, 1, 1]
        shape[axis] = new
        share = share.reshape(shape)
        out = np.take(out, low, axis) * (1 - share) + np.take(out, high, axis) * share
    return out


def test_softmax_rule_by_hand(net):
    """Each pass goes to the original size and through softmax before the mean."""
    info = [("resize", (30, 50))]
    found = infer_augmented(
        net, paddle.to_tensor(IMAGE), info, scales=[0.5, 1.5], flip_horizontal=True, average="softmax"
    ).numpy()
    passes = []
    for scale in (0.5, 1.5):
        size = (int(21 * scale + 0.5), int(34 * scale + 0.5))
        scaled = _numpy_bilinear(IMAGE, size).astype("float32")
        for flip in (False, True):
            given = np.ascontiguousarray(scaled[..., ::-1]) if flip else scaled
            logits = net(paddle.to_tensor(given))[0].numpy()
            logits = logits[..., ::-1] if flip else logits
            logits = _numpy_bilinear(logits, (30, 50))
            e = np.exp(logits - logits.max(1, keepdims=True))
            passes.append(e / e.sum(1, keepdims=True))
    assert len(passes) == 4
    np.testing.assert_allclose(found, np.mean(passes, 0), atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def test_the_two_rules_differ(net):
    image = paddle.to_tensor(IMAGE)
    softmax = infer_augmented(net, image, scales=[0.5, 1.5], average="softmax").numpy()
    logits = F.softmax(infer_augmented(net, image, scales=[0.5, 1.5], average="logits"), axis=1).numpy()
    assert np.abs(softmax - logits).max() > 1e-3


def test_restore_undoes_in_reverse_order():
    x = paddle.arange(24, dtype="float32").reshape([1, 1, 4, 6])
    out = restore(x, [("resize", (8, 10)), ("padding", (3, 5))])
    np.testing.assert_allclose(out.numpy(), _numpy_bilinear(x.numpy()[:, :, :3, :5], (8, 10)), atol=1e-5)


def test_refusals(net):
    image = paddle.to_tensor(IMAGE)
    with pytest.raises(UsageError, match="crop_size and stride"):
        infer(net, image, is_slide=True)
    with pytest.raises(UsageError, match="larger than crop_size"):
        infer(net, image, is_slide=True, crop_size=(8, 8), stride=(9, 8))
    with pytest.raises(UsageError, match="average"):
        infer_augmented(net, image, average="votes")
