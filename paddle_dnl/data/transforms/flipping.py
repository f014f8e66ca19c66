# SPDX-License-Identifier: Apache-2.0
"""Random flips."""

from paddle_dnl.data.transforms.randomness import python_random
from paddle_dnl.registry import TRANSFORMS


@TRANSFORMS.add_component
class RandomHorizontalFlip:
    """Flips the image and its labels horizontally, with probability `prob`.

    Args:
        prob: probability of a flip.
    """

    def __init__(self, prob: float = 0.5):
        self.prob = prob

    def __call__(self, data: dict) -> dict:
        if python_random().random() < self.prob:
            for key in ("img", *data.get("gt_fields", [])):
                data[key] = data[key][:, ::-1]
        return data


@TRANSFORMS.add_component
class RandomVerticalFlip:
    """Flips the image and its labels vertically, with probability `prob`.

    Args:
        prob: probability of a flip.
    """

    def __init__(self, prob: float = 0.1):
        self.prob = prob

    def __call__(self, data: dict) -> dict:
        if python_random().random() < self.prob:
            for key in ("img", *data.get("gt_fields", [])):
                data[key] = data[key][::-1]
        return data
