# SPDX-License-Identifier: Apache-2.0
"""The DNL authors' training augmentation, from the shipped configurations, against their rule over 600 draws.

Source: configs/seg, datasets/tools/cv2_aug_transforms.py and collate.py of yinmh17/DNL-Semantic-Segmentation at 594a359.
"""

import random
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.config import Config
from paddle_dnl.data.transforms import Compose, Padding
from paddle_dnl.errors import UsageError
from paddle_dnl.evaluation.inference import restore

import cv2
import numpy as np
import paddle
import pytest

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "dnlnet" / "official"
ROWS = {
    "cityscapes": ("dnl_temp_in_resnet101_cityscapes_769x769_60k.yml", 769),
    "ade20k": ("dnl_temp_in_resnet101_ade20k_520x520_150k.yml", 520),
    "context": ("dnl_nowd_ln_resnet101_pascal_context59_520x520_30k.yml", 520),
}
# Blue, green, red of a plain picture, far enough from 0 and 255 that no shift clips.
COLOUR = np.array([60, 120, 200])
MEAN = np.array([102.9801, 115.9465, 122.7717])


def _transforms(row: str, section: str) -> Compose:
    cfg = getattr(Config(CONFIGS / ROWS[row][0]), f"{section}_dataset_cfg")
    return Compose([registry.build(step, "transform") for step in cfg["transforms"]])


def _draw(compose: Compose, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    picture = np.broadcast_to(COLOUR.astype(np.uint8), (rows, columns, 3)).copy()
    label = np.tile((np.arange(columns) >= columns // 2).astype(np.uint8), (rows, 1))
    data = compose({"img": picture, "label": label, "gt_fields": ["label"], "trans_info": []})
    return data["img"], data["label"]


@pytest.mark.parametrize("row, picture", [("cityscapes", (200, 400)), ("ade20k", (60, 90)), ("context", (60, 90))])
def test_distribution_over_600_draws(row, picture):
    compose, size = _transforms(row, "train"), ROWS[row][1]
    random.seed(1), np.random.seed(1)
    shifts, offsets, flips, scales, shapes = [], [], [], [], []
    for _ in range(600):
        image, label = _draw(compose, *picture)
        assert image.shape == (3, size, size) and label.shape == (size, size)
        inside = label != 255
        assert (image[:, ~inside] == 0).all()  # padded after the mean is subtracted
        ys, xs = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        assert inside[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1].all()
        shift = image[:, ys[0], xs[0]] + MEAN - COLOUR
        np.testing.assert_allclose(shift, np.full(3, round(float(shift[0]))), atol=1e-3)
        shifts.append(round(float(shift[0])))
        height, width = len(ys), len(xs)
        for start, length in ((ys[0], height), (xs[0], width)):
            if size - length >= 20:
                offsets.append(start / (size - length))
        if height < size and width < size:  # nothing was cut away
            flips.append(label[ys[0], xs[0]] == 1)
            whole = np.array(picture) * (520 / min(picture) if row != "cityscapes" else 1)
            scales.append(np.sqrt(height / whole[0] * width / whole[1]))
            shapes.append(width / whole[1] / (height / whole[0]))
    # Always one whole number of -10 ... 10: with the class's own ratio of 0.5, half of them would be 0.
    counts = np.bincount(np.array(shifts) + 10, minlength=21)
    assert len(counts) == 21 and counts.min() >= 10 and counts[10] < 60
    # The place is uniform, both ends reached.
    assert len(offsets) > 200 and min(offsets) < 0.02 and max(offsets) > 0.98
    assert abs(np.mean(offsets) - 0.5) < 0.08 and abs(np.std(offsets) - 12**-0.5) < 0.04
    assert len(flips) > 30 and 0.3 < np.mean(flips) < 0.7
    assert 0.48 <= min(scales) and max(scales) <= 2.0 and 0.88 <= min(shapes) and max(shapes) <= 1.12
    assert min(shapes) < 0.93 and max(shapes) > 1.07


@pytest.mark.parametrize("row", ROWS)
def test_evaluation_resizes_8_bits(row):
    picture = np.random.default_rng(0).integers(0, 256, (80, 131, 3)).astype(np.uint8)
    image = _transforms(row, "val")({"img": picture.copy(), "trans_info": []})["img"]
    resized = picture if row == "cityscapes" else cv2.resize(picture, (852, 520), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(image, (resized - MEAN).transpose(2, 0, 1), atol=1e-4)


def test_a_random_place_cannot_be_taken_back():
    sample = {"img": np.zeros((5, 6, 3), np.float32), "gt_fields": [], "trans_info": []}
    info = Padding([20, 20], 0, random_offset=True)(sample)["trans_info"]
    with pytest.raises(UsageError, match="random offset"):
        restore(paddle.zeros([1, 2, 20, 20]), info)
