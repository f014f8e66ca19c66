# SPDX-License-Identifier: Apache-2.0
"""OpenMMLab's and DGMN2's pipelines of the shipped configurations work on 8-bit pictures, PaddleSeg's on float32."""

from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.config import Config
from paddle_dnl.data.transforms import Compose, ToUint8

import cv2
import numpy as np
import pytest

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
CASES = [
    ("dnlnet/mmseg/dnl_r50-d8_512x1024_40k_cityscapes.yml", (2048, 1024)),
    ("dmnet/mmseg/dmnet_r50-d8_769x769_40k_cityscapes.yml", (2049, 1025)),
    ("dnlnet/mmseg/dnl_r50-d8_512x512_80k_ade20k.yml", (1024, 512)),
    ("dgmn2/fpn_dgmn2_tiny_cityscapes_769x769_40k.yml", (2049, 1025)),
]


@pytest.mark.parametrize("path, size", CASES)
def test_evaluation_is_the_8_bit_resize(path, size):
    cfg = Config(CONFIGS / path).val_dataset_cfg
    compose = Compose([registry.build(step, "transform") for step in cfg["transforms"]])
    picture = np.random.default_rng(0).integers(0, 256, (100, 200, 3)).astype(np.uint8)
    image = compose({"img": picture.copy(), "trans_info": []})["img"]
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)[..., ::-1]
    np.testing.assert_allclose(image, ((resized - MEAN) / STD).transpose(2, 0, 1), atol=1e-4)


def test_which_sources_start_in_8_bits():
    for path in sorted(CONFIGS.glob("d*/**/*.yml")):
        config = Config(path)
        theirs = "mmseg" in path.parts or "official" in path.parts or "dgmn2" in path.parts
        for section in (config.train_dataset_cfg, config.val_dataset_cfg):
            first = section["transforms"][0]["type"] if section.get("transforms") else None
            assert (first == ToUint8.__name__) == theirs, path
