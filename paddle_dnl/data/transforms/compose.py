# SPDX-License-Identifier: Apache-2.0
"""A list of transforms as one callable."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np


class Compose:
    """Applies transforms to a sample and turns the image into `[C, H, W]` float32.

    Args:
        transforms: callables that take and return a sample (see `paddle_dnl.data.transforms.sample`).
        to_rgb: the image comes as BGR and is turned into RGB first.
        img_channels: 1 or 3; images of another number of channels are refused.
        image_type: type of the image while transforms work on it. `float32` is PaddleSeg's: resizing does not round.
            `uint8` rounds after each transform, as implementations do that read 8-bit images; Normalize ends it.
    """

    def __init__(
        self, transforms: Sequence[Callable], to_rgb: bool = True, img_channels: int = 3, image_type: str = "float32"
    ):
        if not isinstance(transforms, list | tuple):
            raise TypeError(f"transforms must be a list, got {type(transforms).__name__}")
        if image_type not in ("float32", "uint8"):
            raise ValueError(f"image_type must be float32 or uint8, got {image_type!r}")
        self.transforms = list(transforms)
        self.to_rgb, self.img_channels, self.image_type = to_rgb, img_channels, image_type

    def __call__(self, data: dict) -> dict:
        """The transformed sample.

        Args:
            data: `img` `[H, W, C]` or `[H, W]` in 0..255, and optionally `label`, `gt_fields` and `trans_info`; changed in
                place.

        Raises:
            ValueError: the image has another number of channels than `img_channels`.
        """
        image = data["img"]
        channels = 1 if image.ndim == 2 else image.shape[2]
        if channels != self.img_channels:
            raise ValueError(f"the image has {channels} channels, expected {self.img_channels} (img_channels)")
        if self.to_rgb and channels == 3:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        data["img"] = image.astype(self.image_type, copy=False)
        data.setdefault("trans_info", [])
        for transform in self.transforms:
            data = transform(data)
        image = data["img"]
        image = image[np.newaxis] if image.ndim == 2 else image.transpose(2, 0, 1)
        data["img"] = image.astype(np.float32, copy=False)
        return data
