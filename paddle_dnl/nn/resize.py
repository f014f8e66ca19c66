# SPDX-License-Identifier: Apache-2.0
"""Resizing of feature maps and logits; all of the package uses this function."""

import paddle
import paddle.nn.functional as F


@paddle.jit.not_to_static  # so that known sizes stay Python numbers
def spatial_size(x) -> list:
    """Height and width of `x` `[B, C, H, W]`: integers, or scalar tensors in a static graph of free size."""
    height, width = x.shape[2], x.shape[3]
    if height > 0 and width > 0:
        return [int(height), int(width)]
    shape = paddle.shape(x)
    return [shape[2], shape[3]]


@paddle.jit.not_to_static
def resize(x, size, align_corners: bool = False, align_mode: int = 0):
    """Bilinear interpolation to a given size.

    Half-precision input is interpolated in float32, and the result stays float32.

    Args:
        x: `[B, C, H, W]`.
        size: (height, width), integers or scalar tensors, for instance from `spatial_size`.
        align_corners: the corner pixels' centres coincide (sizes such as 769).
        align_mode: only without align_corners. 0: pixels are areas (half-pixel centres), as in PyTorch,
            OpenCV and ONNX; 1: source = target * ratio, the form in which PaddleSeg's DNLNet was trained.

    Returns:
        `[B, C, size[0], size[1]]`.
    """
    if x.dtype in (paddle.float16, paddle.bfloat16):
        x = x.cast("float32")
    if all(isinstance(side, int) for side in size):
        size = [int(side) for side in size]
        if list(x.shape[2:]) == size:
            return x
    else:
        size = paddle.stack([paddle.full([], s, "int32") if isinstance(s, int) else s.cast("int32") for s in size])
    return F.interpolate(x, size, mode="bilinear", align_corners=align_corners, align_mode=align_mode)
