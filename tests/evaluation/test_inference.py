# SPDX-License-Identifier: Apache-2.0
"""Whole, sliding, multi-scale and flipped inference against NumPy and against paddleseg's own functions."""

from paddle_dnl.data.tiling import tile_starts
from paddle_dnl.errors import UsageError
from paddle_dnl.evaluation.inference import infer, infer_augmented, infer_pyramid, restore
from paddle_dnl.evaluation.options import InferenceOptions

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
    assert tile_starts(length, window, stride) == starts


def test_slide_is_the_mean_of_windows(net):
    found = infer(
        net, paddle.to_tensor(IMAGE), InferenceOptions(is_slide=True, crop_size=(16, 12), stride=(9, 7))
    ).numpy()
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
    found = infer(net, image, InferenceOptions(is_slide=True, crop_size=crop, stride=stride)).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_logits_rule_against_paddleseg(net):
    image = paddle.to_tensor(IMAGE)
    info = [("resize", (40, 60)), ("padding", (21, 30))]
    settings = {"scales": [0.5, 1.0, 1.75], "flip_horizontal": True, "flip_vertical": True}
    _, wanted = paddleseg_infer.aug_inference(net, image, info, **settings)
    found = infer_augmented(net, image, info, InferenceOptions(**settings))
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_logits_rule_with_windows_against_paddleseg(net):
    image = paddle.to_tensor(IMAGE)
    settings = {"scales": [0.5, 1.0, 1.5], "flip_horizontal": True} | SLIDE
    _, wanted = paddleseg_infer.aug_inference(net, image, [("resize", (30, 50))], **settings)
    found = infer_augmented(net, image, [("resize", (30, 50))], InferenceOptions(**settings))
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)


def _numpy_bilinear(x, size, align_corners=False):
    """Bilinear with half-pixel centres, or with corners on corners, in NumPy."""
    out = x
    for axis, new in ((2, size[0]), (3, size[1])):
        old = out.shape[axis]
        if align_corners:
            at = np.linspace(0, old - 1, new)
        else:
            at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.minimum(np.floor(at).astype(int), old - 1)
        high, share = np.minimum(low + 1, old - 1), at - low
        shape = [1, 1, 1, 1]
        shape[axis] = new
        share = share.reshape(shape)
        out = np.take(out, low, axis) * (1 - share) + np.take(out, high, axis) * share
    return out


def _numpy_pass(net, image, windows):
    """Mean logits of windows (top, left, bottom, right)."""
    total, count = np.zeros((1, 4, *image.shape[2:])), np.zeros((1, 1, *image.shape[2:]))
    for top, left, bottom, right in windows:
        window = np.ascontiguousarray(image[:, :, top:bottom, left:right])
        total[:, :, top:bottom, left:right] += net(paddle.to_tensor(window))[0].numpy()
        count[:, :, top:bottom, left:right] += 1
    assert count.min() > 0
    return total / count


def _numpy_softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


# Half of 21 x 34 is 10 x 17, one and a half is 31 x 51: cut, not rounded. With windows of 16 x 12 every 9 x 7.
WHOLE = {(10, 17): [(0, 0, 10, 17)], (31, 51): [(0, 0, 31, 51)]}
WINDOWS = {
    (10, 17): [(0, 0, 10, 16), (0, 1, 10, 17)],
    (31, 51): [(y, x, y + 12, x + 16) for y in (0, 7, 14, 19) for x in (0, 9, 18, 27, 35)],
}
SLIDE = {"is_slide": True, "crop_size": (16, 12), "stride": (9, 7)}


@pytest.mark.parametrize("plan, slide", [(WHOLE, {}), (WINDOWS, SLIDE)], ids=["whole", "slide"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_softmax_rule_by_hand(net, plan, slide, align_corners):
    """Windows average logits; each pass goes to the original size and through softmax before the mean."""
    info = [("resize", (30, 50))]
    settings = {"scales": [0.5, 1.5], "flip_horizontal": True, "flip_vertical": True, "align_corners": align_corners}
    found = infer_augmented(
        net, paddle.to_tensor(IMAGE), info, InferenceOptions(average="softmax", **settings, **slide)
    ).numpy()
    passes = []
    for size, windows in plan.items():
        scaled = _numpy_bilinear(IMAGE, size).astype("float32")
        for ys, xs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            logits = _numpy_pass(net, scaled[:, :, ::ys, ::xs], windows)[:, :, ::ys, ::xs]
            passes.append(_numpy_softmax(_numpy_bilinear(logits, (30, 50), align_corners)))
    assert len(passes) == 8
    np.testing.assert_allclose(found, np.mean(passes, 0), atol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)


def test_softmax_rule_after_padding_and_without_transforms(net):
    """Scaled passes first come back to the size of the network's input, where padding can be cut off."""
    image = paddle.to_tensor(IMAGE)
    for info, cut in (([], np.s_[:, :, :, :]), ([("padding", (18, 30))], np.s_[:, :, :18, :30])):
        found = infer_augmented(net, image, info, InferenceOptions(scales=[0.5, 1.5], average="softmax")).numpy()
        passes = []
        for size in WHOLE:
            logits = net(paddle.to_tensor(_numpy_bilinear(IMAGE, size).astype("float32")))[0].numpy()
            passes.append(_numpy_softmax(_numpy_bilinear(logits, (21, 34))[cut]))
        np.testing.assert_allclose(found, np.mean(passes, 0), atol=1e-5)


def _numpy_cubic(x, size):
    """Cubic convolution with A = -0.75, half-pixel centres and repeated edges, as OpenCV's INTER_CUBIC."""

    def weight(t):
        t, a = np.abs(t), -0.75
        near = (a + 2) * t**3 - (a + 3) * t**2 + 1
        return np.where(t <= 1, near, np.where(t < 2, a * (t**3 - 5 * t**2 + 8 * t - 4), 0))

    for axis, new in ((2, size[0]), (3, size[1])):
        old = x.shape[axis]
        at = (np.arange(new) + 0.5) * old / new - 0.5
        matrix = np.zeros((new, old))
        for tap in range(-1, 3):
            source = np.floor(at).astype(int) + tap
            np.add.at(matrix, (np.arange(new), np.clip(source, 0, old - 1)), weight(at - source))
        x = np.moveaxis(np.tensordot(x, matrix, (axis, 1)), -1, axis)
    return x


class Edges(paddle.nn.Layer):
    """Notes its inputs; every pixel's result depends on its distance to the left and upper border of the window."""

    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 4, 5, padding=2)
        self.seen = []

    def forward(self, x):
        self.seen.append(x.numpy())
        ramp = paddle.linspace(0, 1, x.shape[3]).reshape([1, 1, 1, -1]) * paddle.linspace(0, 3, x.shape[2]).reshape(
            [-1, 1]
        )
        return [self.conv(x) + ramp]


def test_official_rule_by_hand():
    """Raw logits of all passes; images resized with aligned corners, padded right and below; results enlarged cubically.

    Half of 21 x 34 is 10 x 17, padded to 16 x 24; one and a half is 31 x 51, padded to 32 x 56.
    """
    net = Edges()
    net.eval()
    settings = {"scales": [0.5, 1.0, 1.5], "flip_horizontal": True, "average": "official", "align_corners": True}
    found = infer_augmented(net, paddle.to_tensor(IMAGE), [("resize", (30, 50))], InferenceOptions(**settings)).numpy()
    seen, net.seen = net.seen, []
    total = np.zeros((1, 4, 30, 50))
    for (height, width), (rows, columns) in (((10, 17), (16, 24)), ((21, 34), (24, 40)), ((31, 51), (32, 56))):
        for step in (1, -1):
            padded = np.zeros((1, 3, rows, columns), "float32")
            scaled = _numpy_bilinear(IMAGE, (height, width), align_corners=True)
            padded[:, :, :height, :width] = scaled[..., ::step]
            np.testing.assert_allclose(seen.pop(0), padded, atol=1e-5)
            logits = net(paddle.to_tensor(padded))[0].numpy()[:, :, :height, :width]
            total += _numpy_cubic(logits, (30, 50))[..., ::step]
    assert not seen
    np.testing.assert_allclose(found, total / 6, atol=1e-3 * np.abs(total / 6).max())
    wrong = infer_augmented(
        net, paddle.to_tensor(IMAGE), [("resize", (30, 50))], InferenceOptions(**settings | {"average": "softmax"})
    )
    assert np.abs(wrong.numpy() - found).max() > 0.1


def test_official_rule_without_transforms_and_with_windows(net):
    """Without a resize the passes come back to the network's input; windows are not padded."""
    found = infer_augmented(
        net, paddle.to_tensor(IMAGE), options=InferenceOptions(scales=[0.5, 1.5], average="official", **SLIDE)
    ).numpy()
    total = 0
    for size, windows in WINDOWS.items():
        scaled = _numpy_bilinear(IMAGE, size, align_corners=True).astype("float32")
        total = total + _numpy_cubic(_numpy_pass(net, scaled, windows), (21, 34))
    np.testing.assert_allclose(found, total / 2, atol=1e-3)


def test_pyramid_takes_pictures_as_they_are(net):
    """Pictures of each scale are not resized, only their logits are."""
    rng = np.random.default_rng(5)
    pictures = [rng.normal(size=(1, 3, *size)).astype("float32") for size in WHOLE]
    info = [("resize", (30, 50))]
    found = infer_pyramid(net, [(paddle.to_tensor(p), info) for p in pictures]).numpy()
    logits = [_numpy_bilinear(net(paddle.to_tensor(p))[0].numpy(), (30, 50)) for p in pictures]
    np.testing.assert_allclose(found, np.mean([_numpy_softmax(x) for x in logits], 0), atol=1e-5)


class Asked(paddle.nn.Layer):
    """Notes the sizes that it is given, and returns its input itself."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, x):
        self.sizes.append(tuple(x.shape[2:]))
        return [x]


def test_sizes_of_scales_follow_the_rule():
    """For 2049 x 1025 the published passes of DGMN2, and PaddleSeg's, one pixel larger where there is half a pixel."""
    published = [(512, 1024), (768, 1536), (1025, 2049), (1281, 2561), (1537, 3073), (1793, 3585)]
    image, scales = paddle.zeros([1, 1, 1025, 2049]), [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    for average in ("softmax", "logits"):
        asked = Asked()
        infer_augmented(asked, image, options=InferenceOptions(scales=scales, average=average))
        up = 0 if average == "softmax" else 0.5
        assert asked.sizes == [(int(1025 * s + up), int(2049 * s + up)) for s in scales]
        assert (asked.sizes == published) == (average == "softmax")


@pytest.mark.parametrize("length, starts", [(512, [0]), (768, [0]), (1024, [0, 255]), (1536, [0, 513, 767]),
    (1025, [0, 256]), (2049, [0, 513, 1026, 1280]), (1281, [0, 512]), (1537, [0, 513, 768]), (3585, 7)])  # fmt: skip
def test_published_windows(length, starts):
    found = tile_starts(length, 769, 513)
    assert len(found) == starts if isinstance(starts, int) else found == starts


def test_what_a_model_returns_is_not_changed():
    """A model whose output shares memory with its input: the mean must not be summed into it."""
    image = paddle.to_tensor(IMAGE)
    found = infer_augmented(Asked(), image, options=InferenceOptions(scales=[1.0, 1.0, 1.0]))
    np.testing.assert_array_equal(image.numpy(), IMAGE)
    np.testing.assert_allclose(found.numpy(), IMAGE, rtol=1e-6)


def test_slide_of_a_batch_and_of_a_model_that_pads():
    class Padding(paddle.nn.Layer):
        def forward(self, x):
            return [F.pad(x, [0, 3, 0, 2], value=1e6)]

    batch = np.concatenate([IMAGE, 2 * IMAGE])
    found = infer(Padding(), paddle.to_tensor(batch), InferenceOptions(**SLIDE))
    assert found.dtype == paddle.float32
    np.testing.assert_allclose(found.numpy(), batch, rtol=1e-6)


def test_the_two_rules_differ(net):
    image = paddle.to_tensor(IMAGE)
    softmax = infer_augmented(net, image, options=InferenceOptions(scales=[0.5, 1.5], average="softmax")).numpy()
    logits = F.softmax(
        infer_augmented(net, image, options=InferenceOptions(scales=[0.5, 1.5], average="logits")), axis=1
    ).numpy()
    assert np.abs(softmax - logits).max() > 1e-3


def test_restore_undoes_in_reverse_order():
    x = paddle.arange(24, dtype="float32").reshape([1, 1, 4, 6])
    out = restore(x, [("resize", (8, 10)), ("padding", (3, 5))])
    np.testing.assert_allclose(out.numpy(), _numpy_bilinear(x.numpy()[:, :, :3, :5], (8, 10)), atol=1e-5)


def test_refusals(net):
    image = paddle.to_tensor(IMAGE)
    with pytest.raises(UsageError, match="crop_size and stride"):
        infer(net, image, InferenceOptions(is_slide=True))
    with pytest.raises(UsageError, match="larger than crop_size"):
        infer(net, image, InferenceOptions(is_slide=True, crop_size=(8, 8), stride=(9, 8)))
    # Nothing is skipped where one window holds the image.
    infer(net, image, InferenceOptions(is_slide=True, crop_size=(34, 21), stride=(50, 50)))
    with pytest.raises(UsageError, match="must be positive"):
        infer(net, image, InferenceOptions(is_slide=True, crop_size=(8, 8), stride=(0, 8)))
    with pytest.raises(UsageError, match="average"):
        infer_augmented(net, image, options=InferenceOptions(average="votes"))
    with pytest.raises(UsageError, match="nothing is left"):
        infer_augmented(net, image, options=InferenceOptions(scales=[1.0, 0.01]))
    with pytest.raises(UsageError, match="nothing is left"):
        infer_augmented(net, image, options=InferenceOptions(scales=[]))
    with pytest.raises(UsageError, match="rotation"):
        restore(image, [("rotation", (3, 4))])
    with pytest.raises(UsageError, match="Conv2D must return a list"):
        infer(net.conv, image)
