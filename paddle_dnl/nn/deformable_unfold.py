# SPDX-License-Identifier: Apache-2.0
"""Nine bilinear samples per pixel at learned offsets: the sampling of DGMN2.

Zhang et al., "Dynamic Graph Message Passing Networks for Visual Recognition", TPAMI 2022; the original is the im2col
step of a deformable convolution (kernel 3, padding 1), left without its matrix product.
"""

from paddle_dnl.errors import ConfigError
from paddle_dnl.nn.attention import in_full_precision
from paddle_dnl.nn.shapes import is_known, size_of

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.vision.ops import deform_conv2d

SAMPLES = 9
MINIMUM_SIDE = 3
IMPLEMENTATIONS = ("auto", "deform", "grid")
_FAR = 1e6  # pixels


def one_hot_kernels(channels: int) -> paddle.Tensor:
    """Weights `[9 * channels, 1, 3, 3]`: the grouped convolution copies sample s of channel c to output 9 c + s."""
    return paddle.eye(SAMPLES).reshape([SAMPLES, 1, 3, 3]).tile([channels, 1, 1, 1])


def _positions(length, dtype) -> paddle.Tensor:
    return paddle.arange(0, length, 1, dtype="int64").astype(dtype)


def _by_grid_sample(x, offset):
    height, width = size_of(x, 2), size_of(x, 3)
    offset = offset.reshape([-1, SAMPLES, 2, height, width])
    tap = paddle.arange(SAMPLES, dtype="int64")
    row_of_tap = (tap // 3 - 1).astype(x.dtype).reshape([SAMPLES, 1, 1])
    column_of_tap = (tap % 3 - 1).astype(x.dtype).reshape([SAMPLES, 1, 1])
    y = offset[:, :, 0] + row_of_tap + _positions(height, x.dtype).reshape([-1, 1])
    x_position = offset[:, :, 1] + column_of_tap + _positions(width, x.dtype)

    def normalised(position, length):
        if not is_known(length):
            length = length.astype(x.dtype)
        return position * (2.0 / (length - 1.0)) - 1.0

    grid = paddle.stack([normalised(x_position, width), normalised(y, height)], axis=-1)
    grid = grid.reshape([-1, SAMPLES, height * width, 2])
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


class DeformableUnfold(nn.Layer):
    """Samples every channel of `x` at nine shifted points around each pixel, zeros outside the map.

    For the pixel (i, j) and sample s = 3 r + t the point is (i - 1 + r + dy, j - 1 + t + dx) in pixels, with dy and dx the
    channels 2 s and 2 s + 1 of the offset. A point contributes where it lies less than one pixel outside.

    Two implementations, equal in value and gradient except where bilinear interpolation has a kink (integer positions):
    `deform` is a deformable convolution with one-hot kernels, bit-equal to the original in both directions and with
    the least memory; `grid` is `grid_sample`, whose backward pass on a CPU is several times faster. `auto` takes `grid`
    while training on a CPU, else `deform`. Infinite and NaN offsets give samples and gradients of zero.

    Args:
        channels: C.
        implementation: `auto`, `deform` or `grid`.

    Raises:
        ConfigError: unknown implementation, or (in `forward`) a map smaller than 3x3.
    """

    def __init__(self, channels: int, implementation: str = "auto"):
        super().__init__()
        if implementation not in IMPLEMENTATIONS:
            raise ConfigError(f"DGMN2.unfold: {implementation!r} is none of {', '.join(IMPLEMENTATIONS)}")
        self.implementation = implementation
        # A constant, not a weight: checkpoints do not hold it.
        self.register_buffer("kernels", one_hot_kernels(channels), persistable=False)

    def _uses_grid(self) -> bool:
        """`auto`: sampling by a grid trains faster on a CPU, the deformable convolution is faster elsewhere."""
        if self.implementation == "auto":
            return self.training and paddle.get_device() == "cpu"
        return self.implementation == "grid"

    def forward(self, x, offset):
        """`x [B, C, H, W]`, `offset [B, 18, H, W]` -> samples `[B, C, 9, H * W]`, float32 for half-precision inputs."""
        height, width = size_of(x, 2), size_of(x, 3)
        if is_known(height) and is_known(width) and min(height, width) < MINIMUM_SIDE:
            raise ConfigError(f"DGMN2 samples 3x3 neighbourhoods and needs a map of 3x3 or more, got {height}x{width}")
        # Paddle has no half-precision kernels for either, and float16 would place a sample by 1/20 of a pixel wrongly.
        x, offset, kernels = in_full_precision(x, offset, self.kernels)
        # NaN and whatever is beyond all maps become a point outside: both kernels read wrong memory for such numbers.
        offset = paddle.where(paddle.isnan(offset), paddle.full_like(offset, _FAR), offset)
        offset = offset.clip(-_FAR, _FAR)
        if self._uses_grid():
            return _by_grid_sample(x, offset)
        # The kernels pick one position each.
        y = deform_conv2d(x, offset, kernels, padding=1, groups=x.shape[1])
        return y.reshape([-1, x.shape[1], SAMPLES, height * width])
