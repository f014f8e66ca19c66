# SPDX-License-Identifier: Apache-2.0
"""Models and pictures small enough to export in a test, with classes that NumPy can tell."""

import paddle_dnl  # noqa: F401,I001  first: it loads zlib before paddle
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from paddle_dnl import user_code
from paddle_dnl.data.classes import ClassInfo
from paddle_dnl.deployment.export.exporter import export_model
from paddle_dnl.registry import TRANSFORMS

# Class of a pixel: which of these (red, green, blue) it is closest in direction to.
COLORS = ((220, 30, 30), (30, 220, 30), (30, 30, 220), (200, 200, 20))
CLASSES = ClassInfo(("red", "green", "blue", "yellow"), ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)))
NORMALIZE = {"type": "Normalize", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
# Rows: weights of red, green, blue for each class, for pixels in [-1, 1].
WEIGHT = np.array([[4, -4, -1], [-4, 4, -1], [-1, -1, 4], [2, 2, -4]], np.float64)
BIAS = np.array([0.0, 0.0, 0.0, -1.0])
# A user's module; red becomes blue and blue red.
_SWAP = """
from paddle_dnl.registry import TRANSFORMS


@TRANSFORMS.add_component
class SwapRedAndBlue:
    def __call__(self, data):
        data["img"] = data["img"][..., ::-1].copy()
        return data
"""


class ColorNet(nn.Layer):
    """Classes by colour alone, at half resolution and back; the second output is for training."""

    def __init__(self, half: bool = False):
        super().__init__()
        self.conv = nn.Conv2D(3, 4, 1)
        self.conv.weight.set_value(WEIGHT.astype(np.float32)[:, :, None, None])
        self.conv.bias.set_value(BIAS.astype(np.float32))
        self.norm = nn.BatchNorm2D(4)
        self.aux = nn.Conv2D(3, 4, 1)
        self.half = half

    def forward(self, x):
        size = x.shape[2:]
        y = nn.functional.avg_pool2d(x, 2) if self.half else x
        y = self.norm(self.conv(y))
        if self.half:
            y = nn.functional.interpolate(y, size, mode="bilinear")
        return [y, self.aux(x)] if self.training else [y]


def export_color_net(folder):
    """`ColorNet` exported for one image of 64x32 pixels; returns the folder."""
    export_model(ColorNet(), folder, input_shape=[1, 3, 32, 64], transforms=[dict(NORMALIZE)], class_info=CLASSES)
    return folder


@contextlib.contextmanager
def own_transform(folder: Path) -> Iterator[Path]:
    """Within it there is a user's transform `SwapRedAndBlue`; yields the file of its module `my_swap`, in `folder`."""
    module = folder / "my_swap.py"
    module.write_text(_SWAP)
    user_code.import_for_export([str(module)])
    try:
        yield module
    finally:
        del TRANSFORMS.components_dict["SwapRedAndBlue"], sys.modules["my_swap"]


class TwoFaced(ColorNet):
    """Another function in a static graph than outside of it: what an export must notice."""

    def __init__(self, shift: float):
        super().__init__()
        self.shift = shift

    def forward(self, x):
        # Paddle 2.6 cannot trace super().
        y = ColorNet.forward(self, x)[0]
        return [y if paddle.in_dynamic_mode() else y + self.shift * paddle.sin(50 * x[:, :1])]


def logits_of(image_bgr: np.ndarray) -> np.ndarray:
    """What `ColorNet` gives for a picture `[H, W, 3]`, in float64: `[4, H, W]`."""
    pixels = image_bgr[..., ::-1].astype(np.float64) / 127.5 - 1
    # Batch normalisation of a fresh layer divides by sqrt(1 + 1e-5).
    return ((pixels @ WEIGHT.T + BIAS) / np.sqrt(1 + 1e-5)).transpose(2, 0, 1)


def blocks(rows: int, columns: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A picture of one-coloured squares, BGR uint8, and its classes."""
    classes = np.random.default_rng(seed).integers(0, 4, (rows, columns))
    label = np.kron(classes, np.ones((size, size), np.int64)).astype(np.uint8)
    return np.asarray(COLORS, np.uint8)[label][..., ::-1].copy(), label
