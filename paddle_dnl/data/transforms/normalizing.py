# SPDX-License-Identifier: Apache-2.0
"""Normalisation: colours in 0..255 to float32 inputs of the network."""

from collections.abc import Sequence

from paddle_dnl.registry import TRANSFORMS

import numpy as np


@TRANSFORMS.add_component
class Normalize:
    """(image / 255 - mean) / std in float32.

    Args:
        mean, std: list of one number, or of one per channel, for colours in 0..1.
    """

    POINTWISE = True

    def __init__(self, mean: Sequence[float] = (0.5,), std: Sequence[float] = (0.5,)):
        for name, value in (("mean", mean), ("std", std)):
            if not isinstance(value, list | tuple) or not value:
                raise ValueError(f"Normalize: {name} must be a list of numbers, one per channel; got {value!r}")
        # float64: subtraction and division round once each, as PaddleSeg's do.
        self.mean, self.std = np.array(mean, np.float64), np.array(std, np.float64)
        if not self.std.all():
            raise ValueError(f"Normalize: std must not hold 0, got {std!r}")

    def __call__(self, data: dict) -> dict:
        channels = 1 if data["img"].ndim == 2 else data["img"].shape[2]
        if {len(self.mean), len(self.std)} - {1, channels}:
            raise ValueError(
                f"Normalize: {len(self.mean)} mean and {len(self.std)} std for an image of {channels} channels"
            )
        image = data["img"].astype(np.float32, copy=False) / np.float32(255)
        image -= self.mean
        image /= self.std
        data["img"] = image
        return data


@TRANSFORMS.add_component
class SubtractMeanBGR:
    """Converts RGB to BGR and subtracts a mean; colours stay in 0..255. This is the input of the DNL authors' networks.

    Args:
        mean: mean of blue, green and red, in 0..255.
    """

    CHANNELS = (3,)
    POINTWISE = True

    def __init__(self, mean: Sequence[float] = (102.9801, 115.9465, 122.7717)):
        if len(mean) != 3:
            raise ValueError(f"mean must have three numbers, got {mean}")
        self.mean = np.array(mean, np.float32)

    def __call__(self, data: dict) -> dict:
        data["img"] = data["img"].astype(np.float32)[..., ::-1] - self.mean
        return data
