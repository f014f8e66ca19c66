# SPDX-License-Identifier: Apache-2.0
"""Random crops: PaddleSeg's, which pads small images, and mmsegmentation's, which does not."""

from collections.abc import Sequence

from paddle_dnl.data.transforms.randomness import numpy_random
from paddle_dnl.data.transforms.sample import crop, pad, size_pair
from paddle_dnl.registry import TRANSFORMS

import numpy as np


class _CategoryCrop:
    """A random window in which no class covers more than a given share of the labelled pixels.

    Up to `loop_times` windows are tried; if none fits, the last one is used, as in mmsegmentation.
    """

    def __init__(self, crop_size, category_max_ratio, ignore_index, loop_times):
        self.width, self.height = size_pair(crop_size, "crop_size")
        if not 0 < category_max_ratio <= 1:
            raise ValueError(f"category_max_ratio must be in (0, 1], got {category_max_ratio}")
        if loop_times < 1:
            raise ValueError(f"loop_times must be at least 1, got {loop_times}")
        self.category_max_ratio = category_max_ratio
        self.ignore_index = ignore_index
        self.loop_times = loop_times

    def _window(self, shape) -> tuple[int, int]:
        top = numpy_random().randint(0, max(shape[0] - self.height, 0) + 1)
        left = numpy_random().randint(0, max(shape[1] - self.width, 0) + 1)
        return top, left

    def crop(self, data: dict) -> dict:
        """Crops to the window size, or to the whole side where the image is smaller."""
        shape = data["img"].shape
        top, left = self._window(shape)
        if self.category_max_ratio < 1:
            for _ in range(self.loop_times):
                window = data["label"][top : top + self.height, left : left + self.width]
                values, counts = np.unique(window, return_counts=True)
                counts = counts[values != self.ignore_index]
                if len(counts) > 1 and counts.max() / counts.sum() < self.category_max_ratio:
                    break
                top, left = self._window(shape)
        return crop(data, top, left, self.height, self.width)


@TRANSFORMS.add_component
class RandomPaddingCrop(_CategoryCrop):
    """Crops a random window; images smaller than the window are first padded at the right and bottom.

    Arguments as in PaddleSeg. PaddleSeg 2.8 replaces the image by the label's window where `category_max_ratio` < 1; this
    one does not.

    Args:
        crop_size: [width, height].
        im_padding_value: padding value of the image, one number or one per channel.
        label_padding_value: padding value of labels.
        category_max_ratio: see `RandomCrop`.
        ignore_index: label of pixels that `category_max_ratio` leaves out.
        loop_times: windows to try for `category_max_ratio`.
    """

    def __init__(
        self,
        crop_size: Sequence[int] = (512, 512),
        im_padding_value=127.5,
        label_padding_value: int = 255,
        category_max_ratio: float = 1.0,
        ignore_index: int = 255,
        loop_times: int = 10,
    ):
        super().__init__(crop_size, category_max_ratio, ignore_index, loop_times)
        self.im_padding_value = im_padding_value
        self.label_padding_value = label_padding_value

    def __call__(self, data: dict) -> dict:
        rows, columns = data["img"].shape[:2]
        down, right = max(self.height - rows, 0), max(self.width - columns, 0)
        if down or right:
            data = pad(data, down, right, self.im_padding_value, self.label_padding_value)
        return self.crop(data)


@TRANSFORMS.add_component
class RandomCrop(_CategoryCrop):
    """Crops a random window without padding, as mmsegmentation does; it pads later, after normalising (use `Padding`).

    Args:
        crop_size: [width, height].
        category_max_ratio: largest share of the window's labelled pixels that one class may cover; 1 allows all windows.
        ignore_index: label of pixels that `category_max_ratio` leaves out.
        loop_times: windows to try for `category_max_ratio`.
    """

    def __init__(
        self,
        crop_size: Sequence[int],
        category_max_ratio: float = 1.0,
        ignore_index: int = 255,
        loop_times: int = 10,
    ):
        super().__init__(crop_size, category_max_ratio, ignore_index, loop_times)

    def __call__(self, data: dict) -> dict:
        return self.crop(data)
