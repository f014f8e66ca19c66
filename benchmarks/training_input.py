# SPDX-License-Identifier: Apache-2.0
"""What both frameworks' training steps have in common: a picture with labels, and a step without dropout. Imports neither."""

import contextlib
from collections.abc import Iterator

import numpy as np


def training_input(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture `[1, 3, H, W]` in float32 and its labels `[1, H, W]`, 19 classes and 5 % ignored pixels, in int64."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 3, height, width)).astype(np.float32)
    label = rng.integers(0, 19, (1, height, width))
    label[rng.random(label.shape) < 0.05] = 255
    return image, label


@contextlib.contextmanager
def without_dropout(layers: list) -> Iterator[None]:
    """Context in which dropout layers, of either framework, keep everything: the two frameworks draw different numbers."""
    rates = [layer.p for layer in layers]
    for layer in layers:
        layer.p = 0.0
    try:
        yield
    finally:
        for layer, rate in zip(layers, rates, strict=True):
            layer.p = rate
