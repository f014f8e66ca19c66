# SPDX-License-Identifier: Apache-2.0
"""Transforms against NumPy by hand."""

import random

from paddle_dnl.data import transforms as T
from paddle_dnl.data.transforms.resizing import fit_size

import cv2
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _seed():
    random.seed(0)
    np.random.seed(0)


def _sample(rows=20, columns=30, labels=None):
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 255, (rows, columns, 3)).astype(np.float32)
    label = rng.integers(0, 5, (rows, columns)).astype(np.uint8) if labels is None else labels
    return {"img": image, "label": label, "gt_fields": ["label"], "trans_info": []}


def test_crop_is_a_window_of_both():
    data = _sample()
    image, label = data["img"].copy(), data["label"].copy()
    out = T.RandomPaddingCrop([8, 6])(data)
    assert out["img"].shape == (6, 8, 3) and out["label"].shape == (6, 8)
    places = [(y, x) for y in range(15) for x in range(23) if np.array_equal(image[y : y + 6, x : x + 8], out["img"])]
    ((y, x),) = places
    np.testing.assert_array_equal(out["label"], label[y : y + 6, x : x + 8])


def test_crop_pads_below_and_right():
    data = _sample()
    image = data["img"].copy()
    out = T.RandomPaddingCrop([40, 25], im_padding_value=[1, 2, 3], label_padding_value=254)(data)
    np.testing.assert_array_equal(out["img"][:20, :30], image)
    np.testing.assert_array_equal(out["img"][24, 39], [1, 2, 3])
    assert (out["label"][20:] == 254).all() and (out["label"][:, 30:] == 254).all()


def test_category_limit_moves_the_window_and_crops_the_image():
    labels = np.zeros((20, 30), np.uint8)
    labels[:, 20:] = 1
    shares = []
    for _ in range(40):
        out = T.RandomPaddingCrop([10, 10], category_max_ratio=0.75)(_sample(labels=labels.copy()))
        assert out["img"].shape == (10, 10, 3)
        shares.append((out["label"] == 0).mean())
    # Without the limit half of the windows show one class only.
    assert np.mean([0.25 < share < 0.75 for share in shares]) > 0.8
    ignored = np.full((20, 30), 255, np.uint8)
    assert T.RandomCrop([10, 10], category_max_ratio=0.5)(_sample(labels=ignored))["label"].shape == (10, 10)


def test_crop_without_padding_is_clipped():
    assert T.RandomCrop([100, 8])(_sample())["img"].shape == (8, 30, 3)


def test_resize_by_short_forgets():
    """One large image must not change the rule for the next, as PaddleSeg's does."""
    transform = T.ResizeByShort(10, 20)
    transform(_sample(10, 100))
    assert transform(_sample(20, 30))["img"].shape[:2] == (10, 15)
    data = T.ResizeByShort(520, 1040)(_sample(100, 300))
    assert data["img"].shape[:2] == (347, 1040) and data["trans_info"] == [("resize", (100, 300))]


def test_resize_to_fit():
    """mmsegmentation's rule: 2048x1024 into 2049x1025 is that, a square is limited by the short side."""
    fit = T.ResizeToFit([2049, 1025])
    assert fit_size(1024, 2048, 2049, 1025) == (2049, 1025)
    assert fit_size(100, 100, 2048, 512) == (512, 512)
    assert fit_size(300, 200, 2048, 512) == (512, 768)
    assert fit(_sample(16, 32))["img"].shape[:2] == (1025, 2049)
    sizes = {T.ResizeToFit([40, 20], [0.5, 2.0])(_sample(10, 20))["img"].shape[1] for _ in range(60)}
    assert min(sizes) < 30 and max(sizes) > 70 and min(sizes) >= 20 and max(sizes) <= 80


def test_scale_and_aspect():
    rows, columns = [], []
    for _ in range(200):
        shape = T.RandomScaleAspect(scale_range=[0.5, 2.0], aspect_range=[0.9, 1.1])(_sample(100, 200))["img"].shape
        rows.append(shape[0])
        columns.append(shape[1])
    aspect = np.array(columns) / np.array(rows) / 2
    assert aspect.min() > 0.87 and aspect.max() < 1.13 and aspect.std() > 0.03
    scale = np.sqrt(np.array(columns) * np.array(rows) / 20000)
    assert 0.49 < scale.min() < 0.6 and 1.9 < scale.max() < 2.01


def test_one_channel_images():
    """Grey images are [H, W] on the way."""
    for transform in (
        T.RandomPaddingCrop([40, 10]), T.RandomCrop([8, 6]), T.ResizeToFit([40, 20]), T.ResizeByShort(10),
        T.RandomScaleAspect(scale_range=[0.5, 2.0]), T.RandomBrightnessShift(prob=1.0),
    ):  # fmt: skip
        data = _sample()
        data["img"] = data["img"][..., 0]
        out = transform(data)
        assert out["img"].ndim == 2 and out["img"].shape == out["label"].shape and out["img"].dtype == np.float32


def test_brightness_shift_is_one_integer_for_all():
    data = _sample()
    before = data["img"].copy()
    after = T.RandomBrightnessShift(10, prob=1.0)(data)["img"]
    inside = (before > 12) & (before < 240)
    shift = (after - before)[inside]
    assert np.ptp(shift) < 1e-4 and abs(shift[0]) <= 10 and abs(shift[0] - round(float(shift[0]))) < 1e-4
    assert after.min() >= 0 and after.max() <= 255


def _photometric_by_hand(image, seed):
    """The published order with OpenCV, drawing the same random numbers."""
    rng = np.random.RandomState(seed)
    image = image.astype(np.uint8)

    def adjust(x, alpha=1.0, beta=0.0):
        return np.clip(x.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)

    if rng.randint(2):
        image = adjust(image, beta=rng.uniform(-32, 32))
    first = rng.randint(2) == 1
    if first and rng.randint(2):
        image = adjust(image, rng.uniform(0.5, 1.5))
    if rng.randint(2):
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = adjust(hsv[..., 1], rng.uniform(0.5, 1.5))
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if rng.randint(2):
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + rng.randint(-18, 18)) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if not first and rng.randint(2):
        image = adjust(image, rng.uniform(0.5, 1.5))
    return image.astype(np.float32)


@pytest.mark.parametrize("seed", range(12))
def test_photometric_distortion(seed):
    data = _sample()
    wanted = _photometric_by_hand(data["img"], seed)
    np.random.seed(seed)
    found = T.PhotoMetricDistortion()(data)["img"]
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == np.float32


def test_bgr_mean():
    data = _sample()
    rgb = data["img"].copy()
    out = T.SubtractMeanBGR()(data)["img"]
    np.testing.assert_allclose(out[..., 0], rgb[..., 2] - 102.9801, rtol=1e-6)
    np.testing.assert_allclose(out[..., 2], rgb[..., 0] - 122.7717, rtol=1e-6)


@pytest.mark.parametrize("make", [
    lambda: T.RandomPaddingCrop([0, 5]), lambda: T.RandomPaddingCrop(5),
    lambda: T.RandomPaddingCrop([5, 5], category_max_ratio=0),
    lambda: T.RandomCrop([5, 5], loop_times=0), lambda: T.ResizeToFit([5]), lambda: T.ResizeToFit([5, 5], [2, 1]),
    lambda: T.RandomScaleAspect(scale_range=[0, 1]),
    lambda: T.RandomScaleAspect(min_scale=0.3, scale_range=[1, 2]), lambda: T.SubtractMeanBGR([1, 2]),
])  # fmt: skip
def test_refusals(make):
    with pytest.raises(ValueError):
        make()


def test_a_pipeline_stays_in_8_bits_when_asked():
    """uint8 until Normalize, rounded at each step; float32 by default; the network always gets float32."""
    seen = []

    def spy(data):
        seen.append(data["img"].dtype)
        return data

    steps = [
        spy, T.ResizeStepScaling(0.5, 0.5), spy, T.RandomPaddingCrop([40, 30], im_padding_value=7), spy,
        T.RandomDistort(), spy, T.PhotoMetricDistortion(), spy, T.RandomBrightnessShift(prob=1.0), spy,
        T.RandomHorizontalFlip(1.0), spy,
    ]  # fmt: skip
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    for first, image_type in (([T.ToUint8()], "uint8"), ([], "float32")):
        seen.clear()
        out = T.Compose([*first, *steps])({"img": picture.copy()})
        assert {str(dtype) for dtype in seen} == {image_type}
        assert out["img"].shape == (3, 30, 40) and out["img"].dtype == np.float32
    half = T.Compose([T.ToUint8(), T.ResizeStepScaling(0.5, 0.5)], to_rgb=False)({"img": picture.copy()})["img"]
    wanted = cv2.resize(picture, (15, 10), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(half.transpose(1, 2, 0), wanted)
    rounded = T.ToUint8()({"img": np.array([[[-1.0, 0.6, 300.0]]], np.float32)})["img"]
    assert rounded.dtype == np.uint8 and rounded.tolist() == [[[0, 1, 255]]]


def test_padding_refuses_what_is_larger():
    with pytest.raises(ValueError, match="30x20, is larger than target_size, 29x40"):
        T.Padding([29, 40])(_sample())
    assert T.PaddingByAspectRatio(1.5)(_sample())["trans_info"] == []
