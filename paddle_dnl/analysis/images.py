# SPDX-License-Identifier: Apache-2.0
"""Images as a model's configuration prepares them for validation."""

from dataclasses import dataclass
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.data.reading import read_image
from paddle_dnl.data.transforms import Compose
from paddle_dnl.errors import UsageError

import numpy as np
import paddle


@dataclass
class Prepared:
    """A picture, BGR uint8 `[H, W, 3]` as stored, and what the network gets: `[1, 3, h, w]`, with what was done to it."""

    picture: np.ndarray
    tensor: paddle.Tensor
    trans_info: list


class Preparation:
    """The validation transforms of a configuration.

    Raises:
        UsageError: the configuration has no val_dataset.
    """

    def __init__(self, config):
        dataset = config.val_dataset_cfg
        if not dataset:
            raise UsageError("the configuration has no val_dataset, whose transforms prepare the images")
        transforms = [registry.build(cfg, "transform") for cfg in dataset.get("transforms", [])]
        self._compose = Compose(transforms, img_channels=dataset.get("img_channels", 3))

    def __call__(self, path: str | Path) -> Prepared:
        """Reads and prepares one image.

        Raises:
            DataError: it cannot be read, or the transforms cannot take it.
        """
        picture = read_image(path)
        data = self._compose.picture(picture, path, "val_dataset.transforms")
        return Prepared(picture, paddle.to_tensor(data["img"][None]), data["trans_info"])
