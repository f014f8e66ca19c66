# SPDX-License-Identifier: Apache-2.0
"""Preprocesses images as a model's configuration defines for validation."""

from dataclasses import dataclass
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.data.images.image_format import ImageFormat
from paddle_dnl.data.overlay import displayed
from paddle_dnl.data.transforms.compose import Compose
from paddle_dnl.errors import UsageError
from paddle_dnl.evaluation.strips import network_input

import numpy as np
import paddle


@dataclass
class Prepared:
    """A preprocessed image.

    Attributes:
        picture: the image for display, BGR uint8 `[H, W, 3]`.
        tensor: network input `[1, C, h, w]`.
        trans_info: sizes before each transform.
    """

    picture: np.ndarray
    tensor: paddle.Tensor
    trans_info: list


class Preparation:
    """Applies the validation transforms of a configuration.

    Raises:
        UsageError: the configuration has no val_dataset.
    """

    def __init__(self, config):
        dataset = config.val_dataset_cfg
        if not dataset:
            raise UsageError(
                "the configuration has no val_dataset, whose transforms are needed to preprocess the images"
            )
        transforms = [registry.build(cfg, "transform") for cfg in dataset.get("transforms", [])]
        self.image_format = ImageFormat.of(dataset)
        self._compose = Compose(transforms, img_channels=self.image_format.channels)

    def __call__(self, path: str | Path) -> Prepared:
        """Reads and preprocesses one image.

        Raises:
            DataError: the image cannot be read, or the transforms do not accept it.
        """
        picture = self.image_format.read(path)
        return Prepared(displayed(picture), *network_input(self._compose, picture, path))
