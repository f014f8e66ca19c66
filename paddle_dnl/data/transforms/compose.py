# SPDX-License-Identifier: Apache-2.0
"""`Compose`, the transforms of a dataset as one callable, and `ToUint8`."""

from collections.abc import Callable, Sequence

from paddle_dnl.errors import DataError
from paddle_dnl.registry import TRANSFORMS

import cv2
import numpy as np


@TRANSFORMS.add_component
class ToUint8:
    """Converts the image to uint8, rounded and clipped to 0..255, so that later resizes round to whole numbers.

    As the first transform it keeps the image in uint8 as it was read: mmsegmentation, DGMN2 and the DNL authors resize and
    distort uint8 images. PaddleSeg resizes float32 images, without rounding.
    """

    POINTWISE = True

    def __call__(self, data: dict) -> dict:
        image = data["img"]
        if image.dtype != np.uint8:
            data["img"] = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        return data


class Compose:
    """Applies transforms to a sample and turns the image into `[C, H, W]` float32.

    Args:
        transforms: callables that take and return a sample (see `paddle_dnl.data.transforms.sample`).
        to_rgb: convert BGR images to RGB first.
        img_channels: expected number of channels.

    Raises:
        ValueError: a transform does not support this number of channels (its `CHANNELS`).

    Transforms get the image in float32, as in PaddleSeg, unless the first of them is `ToUint8`.
    """

    def __init__(self, transforms: Sequence[Callable], to_rgb: bool = True, img_channels: int = 3):
        if not isinstance(transforms, list | tuple):
            raise TypeError(f"transforms must be a list, got {type(transforms).__name__}")
        self.transforms = list(transforms)
        self.to_rgb, self.img_channels = to_rgb, img_channels
        for transform in self.transforms:
            allowed = getattr(transform, "CHANNELS", None)
            if allowed is not None and img_channels not in allowed:
                counts = " or ".join(map(str, allowed))
                raise ValueError(
                    f"{type(transform).__name__}: is for images of {counts} channels, not {img_channels} (img_channels); "
                    "remove it"
                )

    def __call__(self, data: dict) -> dict:
        """The transformed sample.

        Args:
            data: `img` `[H, W, C]` or `[H, W]` on the scale 0..255, and optionally `label`, `gt_fields` and `trans_info`;
                changed in place.

        Raises:
            ValueError: the image has another number of channels than `img_channels`.
        """
        image = data["img"]
        channels = 1 if image.ndim == 2 else image.shape[2]
        if channels != self.img_channels:
            raise ValueError(f"the image has {channels} channels, expected {self.img_channels} (img_channels)")
        if self.to_rgb and channels == 3:
            image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        stays = self.transforms and isinstance(self.transforms[0], ToUint8)
        data["img"] = image if stays else image.astype(np.float32, copy=False)
        data.setdefault("trans_info", [])
        for transform in self.transforms:
            data = transform(data)
        image = data["img"]
        image = image[np.newaxis] if image.ndim == 2 else image.transpose(2, 0, 1)
        data["img"] = image.astype(np.float32, copy=False)
        return data

    @property
    def is_pointwise(self) -> bool:
        """Whether each output pixel depends on the same input pixel only; a picture can then be processed in parts."""
        return all(getattr(transform, "POINTWISE", False) for transform in self.transforms)

    def picture(self, pixels: np.ndarray, name, where: str) -> dict:
        """The transformed sample of a picture without a label.

        Args:
            pixels: uint8 `[H, W, C]` or `[H, W]`.
            name: name of the picture, for error messages.
            where: configuration key of the transforms, for error messages.

        Raises:
            DataError: a transform failed on the picture.
        """
        try:
            return self({"img": pixels})
        except (ValueError, TypeError, OverflowError, DataError, cv2.error) as error:
            size = f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise DataError(f"{name}: {size} pixels do not pass {where}: {' '.join(str(error).split())}") from error
