# SPDX-License-Identifier: Apache-2.0
"""A transform for multi-label segmentation, see `paddle_dnl.data.masks`."""

from paddle_dnl.registry import TRANSFORMS

import numpy as np


@TRANSFORMS.add_component
class AddMultiLabelAuxiliaryCategory:
    """Prepends a mask of the pixels that belong to no other mask (background). `num_classes` includes it."""

    def __call__(self, data: dict) -> dict:
        if "label" in data:
            masks = data["label"]
            if masks.ndim != 3:
                raise ValueError("AddMultiLabelAuxiliaryCategory is for several masks in one picture: --use_multilabel")
            none = (masks == 0).all(axis=2, keepdims=True).astype(masks.dtype)
            data["label"] = np.concatenate([none, masks], axis=2)
        return data
