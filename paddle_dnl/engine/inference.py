"""From images to logits: whole, by sliding window, at several scales and flipped. Plain functions on a model."""

from collections.abc import Sequence

from paddle_dnl.errors import UsageError
from paddle_dnl.nn.resize import resize

import numpy as np
import paddle
import paddle.nn.functional as F


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along one side; the last one is moved back to end at the border."""
    if length <= window:
        return [0]
    count = -(-(length - window) // stride) + 1
    return [min(i * stride, length - window) for i in range(count)]


def _slide(model, image, crop_size, stride):
    """Mean logits of overlapping windows, `[B, K, H, W]` in float32."""
    (width, height), (stride_x, stride_y) = crop_size, stride
    if stride_x > width or stride_y > height:
        raise UsageError(f"stride {list(stride)} is larger than crop_size {list(crop_size)}: pixels would be skipped")
    rows, columns = image.shape[2:]
    tops, lefts = window_starts(rows, height, stride_y), window_starts(columns, width, stride_x)
    total = None
    count = np.zeros((1, 1, rows, columns), np.float32)
    for top in tops:
        for left in lefts:
            ys, xs = slice(top, min(top + height, rows)), slice(left, min(left + width, columns))
            logits = model(image[:, :, ys, xs])[0].astype("float32")
            if total is None:
                total = paddle.zeros([*logits.shape[:2], rows, columns])
            total[:, :, ys, xs] = total[:, :, ys, xs] + logits
            count[:, :, ys, xs] += 1
    return total / paddle.to_tensor(count)


@paddle.no_grad()
def infer(
    model: paddle.nn.Layer,
    image: paddle.Tensor,
    *,
    is_slide: bool = False,
    crop_size: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
) -> paddle.Tensor:
    """Logits of the main output.

    Args:
        model: maps `[B, 3, H, W]` to a list of logits.
        image: `[B, 3, H, W]`.
        is_slide: average the logits of windows instead of one pass over the whole image.
        crop_size: (width, height) of a window; one that is larger than the image is clipped.
        stride: (x, y) distance of windows.

    Returns:
        `[B, K, H, W]`, float32.

    Raises:
        UsageError: `is_slide` without sizes, or a stride larger than the window.
    """
    if not is_slide:
        return model(image)[0].astype("float32")
    if not crop_size or not stride:
        raise UsageError("sliding evaluation needs crop_size and stride, both as width and height in pixels")
    return _slide(model, image, crop_size, stride)


def _flips(horizontal: bool, vertical: bool) -> list[list[int]]:
    """Axes to flip, for each combination."""
    combinations = [[]]
    if horizontal:
        combinations.append([3])
    if vertical:
        combinations.append([2])
        if horizontal:
            combinations.append([2, 3])
    return combinations


@paddle.no_grad()
def infer_augmented(
    model: paddle.nn.Layer,
    image: paddle.Tensor,
    trans_info: Sequence = (),
    *,
    scales: Sequence[float] = (1.0,),
    flip_horizontal: bool = False,
    flip_vertical: bool = False,
    is_slide: bool = False,
    crop_size: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    average: str = "logits",
    align_corners: bool = False,
) -> paddle.Tensor:
    """Mean over scales and flips, at the size before the transforms in `trans_info`.

    Args:
        image: `[B, 3, H, W]`, normalised; it is resized for each scale.
        trans_info: sizes to go back through, see `restore`.
        scales: factors on H and W.
        flip_horizontal, flip_vertical: also flipped, in all combinations.
        average: `logits`: mean of logits at the size of `image`, then restored: PaddleSeg's rule. `softmax`: each pass is
            restored first, and its softmax is averaged: the rule of mmsegmentation and DGMN2.
        align_corners: for restoring; True where the published model resizes so.

    Returns:
        `[B, K, h, w]`: logits, or probabilities for `softmax`.

    Raises:
        UsageError: as `infer`; or an unknown rule.
    """
    if average not in ("logits", "softmax"):
        raise UsageError(f"average must be logits or softmax, got {average!r}")
    height, width = image.shape[2:]
    flips = _flips(flip_horizontal, flip_vertical)
    total = None
    for scale in scales:
        scaled = resize(image, [int(height * scale + 0.5), int(width * scale + 0.5)])
        for axes in flips:
            logits = infer(
                model, scaled.flip(axes) if axes else scaled, is_slide=is_slide, crop_size=crop_size, stride=stride
            )
            logits = logits.flip(axes) if axes else logits
            if average == "logits":
                scores = resize(logits, [height, width])
            else:
                scores = F.softmax(_restore_from(logits, [height, width], trans_info, align_corners), axis=1)
            total = scores if total is None else total.add_(scores)
    mean = total / (len(scales) * len(flips))
    return restore(mean, trans_info, align_corners) if average == "logits" else mean


def _restore_from(logits, size, trans_info, align_corners):
    """Restores logits of a scaled pass; a resize that follows directly is done in one step, as the originals do."""
    last = trans_info[-1] if trans_info else None
    if last is not None and last[0] == "resize":
        return restore(logits, trans_info, align_corners)
    return restore(resize(logits, size, align_corners), trans_info, align_corners)


def restore(logits: paddle.Tensor, trans_info: Sequence, align_corners: bool = False) -> paddle.Tensor:
    """Undoes the resizing and padding of transforms, last one first.

    Args:
        logits: `[B, K, H, W]`.
        trans_info: `("resize" | "padding", (height, width) before it)`, in the order applied.
        align_corners: for the resizing.
    """
    for name, (height, width) in reversed(list(trans_info)):
        height, width = int(height), int(width)
        if name == "resize":
            logits = resize(logits, [height, width], align_corners)
        else:
            logits = logits[:, :, :height, :width]
    return logits
