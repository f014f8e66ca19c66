# SPDX-License-Identifier: Apache-2.0
"""Transforms of samples, with PaddleSeg's names and arguments. Importing this package registers all of them.

Images are RGB in 0..255 up to `Normalize` or `SubtractMeanBGR`. Random numbers come from the generators of `randomness.py`,
which training seeds for each sample, and are drawn in PaddleSeg's order. Sizes in arguments are (width, height).
"""

from paddle_dnl.data.transforms.colour import PhotoMetricDistortion, RandomBrightnessShift, RandomDistort
from paddle_dnl.data.transforms.compose import Compose, ToUint8
from paddle_dnl.data.transforms.cropping import RandomCrop, RandomPaddingCrop
from paddle_dnl.data.transforms.edges import binary_edges
from paddle_dnl.data.transforms.flipping import RandomHorizontalFlip, RandomVerticalFlip
from paddle_dnl.data.transforms.multilabel import AddMultiLabelAuxiliaryCategory
from paddle_dnl.data.transforms.normalizing import Normalize, SubtractMeanBGR
from paddle_dnl.data.transforms.padding import Padding, PaddingByAspectRatio
from paddle_dnl.data.transforms.resizing import LimitLong, Resize, ResizeByLong, ResizeByShort, ResizeToFit
from paddle_dnl.data.transforms.scaling import RandomScaleAspect, ResizeRangeScaling, ResizeStepScaling

__all__ = [
    "AddMultiLabelAuxiliaryCategory",
    "Compose", "LimitLong", "Normalize", "Padding", "PaddingByAspectRatio", "PhotoMetricDistortion",
    "RandomBrightnessShift", "RandomCrop", "RandomDistort", "RandomHorizontalFlip", "RandomPaddingCrop",
    "RandomScaleAspect", "RandomVerticalFlip", "Resize", "ResizeByLong", "ResizeByShort", "ResizeRangeScaling",
    "ResizeStepScaling", "ResizeToFit", "SubtractMeanBGR", "ToUint8", "binary_edges",
]  # fmt: skip
