# SPDX-License-Identifier: Apache-2.0
"""Padding to a given size or aspect ratio."""

from collections.abc import Sequence

from paddle_dnl.data.transforms.randomness import python_random
from paddle_dnl.data.transforms.sample import pad, size_pair
from paddle_dnl.registry import TRANSFORMS


@TRANSFORMS.add_component
class Padding:
    """Pads image and labels to `target_size`, at the bottom and the right.

    Args:
        target_size: [width, height].
        im_padding_value: padding value of the image, one number or one per channel.
        label_padding_value: padding value of labels.
        random_offset: for training: place the image at a random position in the padded one instead, as the DNL authors do
            (datasets/tools/collate.py of yinmh17/DNL-Semantic-Segmentation).
    """

    def __init__(
        self,
        target_size: Sequence[int],
        im_padding_value=127.5,
        label_padding_value: int = 255,
        random_offset: bool = False,
    ):
        self.width, self.height = size_pair(target_size, "target_size")
        self.im_padding_value, self.label_padding_value = im_padding_value, label_padding_value
        self.random_offset = random_offset

    def __call__(self, data: dict) -> dict:
        """The padded sample.

        Raises:
            ValueError: the image is larger than `target_size`.
        """
        rows, columns = data["img"].shape[:2]
        if rows > self.height or columns > self.width:
            raise ValueError(
                f"Padding: the image, {columns}x{rows}, is larger than target_size, {self.width}x{self.height}"
            )
        down, right = self.height - rows, self.width - columns
        if not self.random_offset:
            data["trans_info"].append(("padding", (rows, columns)))
            return pad(data, down, right, self.im_padding_value, self.label_padding_value)
        # The offset is not recorded, so that this padding cannot be reversed; restoring a prediction refuses this name.
        data["trans_info"].append(("padding at a random offset", (rows, columns)))
        left, up = python_random().randint(0, right), python_random().randint(0, down)
        return pad(data, down - up, right - left, self.im_padding_value, self.label_padding_value, up, left)


@TRANSFORMS.add_component
class PaddingByAspectRatio:
    """Pads at the bottom or the right to a given aspect ratio.

    Args:
        aspect_ratio: width / height.
        im_padding_value: padding value of the image, one number or one per channel.
        label_padding_value: padding value of labels.
    """

    def __init__(self, aspect_ratio: float = 1, im_padding_value=127.5, label_padding_value: int = 255):
        if aspect_ratio <= 0:
            raise ValueError(f"aspect_ratio must be above 0, got {aspect_ratio}")
        self.aspect_ratio = aspect_ratio
        self.im_padding_value, self.label_padding_value = im_padding_value, label_padding_value

    def __call__(self, data: dict) -> dict:
        rows, columns = data["img"].shape[:2]
        height, width = rows, columns
        if columns / rows > self.aspect_ratio:
            height = int(columns / self.aspect_ratio)
        elif columns / rows < self.aspect_ratio:
            width = int(rows * self.aspect_ratio)
        if (height, width) == (rows, columns):
            return data
        return Padding((width, height), self.im_padding_value, self.label_padding_value)(data)
