# SPDX-License-Identifier: Apache-2.0
"""From images to logits: whole, by sliding window, at several scales and flipped. Plain functions on a model."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from paddle_dnl.config.choices import AVERAGES
from paddle_dnl.errors import UsageError
from paddle_dnl.nn.resize import resize

import numpy as np
import paddle
import paddle.nn.functional as F

# The authors' test program pads each pass to a multiple of this.
_OFFICIAL_MULTIPLE = 8


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along one side; the last one is moved back to end at the border."""
    if length <= window:
        return [0]
    count = -(-(length - window) // stride) + 1
    return [min(i * stride, length - window) for i in range(count)]


def _main_logits(model, image: paddle.Tensor) -> paddle.Tensor:
    outputs = model(image)
    if not isinstance(outputs, list | tuple):
        raise UsageError(f"{type(model).__name__} must return a list of logits; it returned {type(outputs).__name__}")
    return outputs[0].astype("float32")


def _slide(model, image, crop_size, stride):
    """Mean logits of overlapping windows, `[B, K, H, W]` in float32."""
    (width, height), (stride_x, stride_y) = crop_size, stride
    if min(width, height, stride_x, stride_y) <= 0:
        raise UsageError(f"crop_size {list(crop_size)} and stride {list(stride)} must be positive")
    rows, columns = image.shape[2:]
    tops, lefts = window_starts(rows, height, stride_y), window_starts(columns, width, stride_x)
    for starts, window in ((tops, height), (lefts, width)):
        if any(after - before > window for before, after in pairwise(starts)):
            raise UsageError(
                f"stride {list(stride)} is larger than crop_size {list(crop_size)}: pixels would be skipped"
            )
    if len(tops) * len(lefts) == 1:
        return _main_logits(model, image)
    # Adding a window in place costs Paddle's CPU kernels six times what it costs NumPy; on a GPU logits stay there.
    on_cpu = image.place.is_cpu_place()
    total = None
    count = np.zeros((1, 1, rows, columns), np.float32)
    for top in tops:
        for left in lefts:
            ys, xs = slice(top, min(top + height, rows)), slice(left, min(left + width, columns))
            logits = _main_logits(model, image[:, :, ys, xs])
            if total is None:
                shape = [*logits.shape[:2], rows, columns]
                total = np.zeros(shape, np.float32) if on_cpu else paddle.zeros(shape)
            # A model that pads its input may return more than the window.
            logits = logits[:, :, : ys.stop - top, : xs.stop - left]
            total[:, :, ys, xs] += logits.numpy() if on_cpu else logits
            count[:, :, ys, xs] += 1
    if on_cpu:
        total /= count
        return paddle.to_tensor(total)
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
        UsageError: `is_slide` without sizes, windows that leave pixels out, or a model that returns no list.
    """
    if not is_slide:
        return _main_logits(model, image)
    if not crop_size or not stride:
        raise UsageError("sliding evaluation needs crop_size and stride, both as width and height in pixels")
    return _slide(model, image, crop_size, stride)


def _flip(x: paddle.Tensor, axes: tuple[bool, bool]) -> paddle.Tensor:
    """Flipped horizontally and vertically, as a view, which Paddle 3 adds and resizes faster than what `flip` makes."""
    horizontal, vertical = axes
    x = x[:, :, :, ::-1] if horizontal else x
    return x[:, :, ::-1, :] if vertical else x


def _infer_padded(model, image: paddle.Tensor, multiple: int) -> paddle.Tensor:
    """Logits of the image with zeros at the right and bottom up to a multiple of `multiple`; the padding is cut off."""
    height, width = image.shape[2:]
    padded = F.pad(image, [0, -width % multiple, 0, -height % multiple])
    return infer(model, padded)[:, :, :height, :width]


def _flipped_passes(
    model, image, horizontal: bool, vertical: bool, slide: dict, multiple: int = 1
) -> Iterator[paddle.Tensor]:
    """Logits of `image` for every combination of flips, flipped back.

    Without windows each flipped image is padded to a multiple of `multiple` first.
    """
    for axes in ((False, False), (True, False), (False, True), (True, True)):
        if axes[0] <= horizontal and axes[1] <= vertical:
            flipped = _flip(image, axes)
            whole = multiple > 1 and not slide.get("is_slide")
            logits = _infer_padded(model, flipped, multiple) if whole else infer(model, flipped, **slide)
            yield _flip(logits, axes)


class _Mean:
    """The mean of tensors, summed in place."""

    def __init__(self):
        self.total, self.count = None, 0

    def add(self, x: paddle.Tensor) -> None:
        if self.count < 2:
            # The first may belong to the model: the sum needs memory of its own.
            self.total = x if self.total is None else self.total + x
        else:
            self.total.add_(x)
        self.count += 1

    def value(self) -> paddle.Tensor:
        return self.total if self.count == 1 else self.total.scale_(1 / self.count)


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

    Windows of one pass are averaged as logits under all rules.

    Args:
        image: `[B, 3, H, W]`, normalised; it is resized for each scale.
        trans_info: sizes to go back through, see `restore`.
        scales: factors on H and W.
        flip_horizontal, flip_vertical: also flipped, in all combinations.
        average: `logits`: mean of logits at the size of `image`, then restored; sizes of passes are rounded:
            PaddleSeg's rule. `softmax`: each pass is restored first, and its softmax is averaged; sizes of passes are
            cut: the rule of mmsegmentation and DGMN2. They resize the original picture, see `infer_pyramid`.
            `official`: each pass is restored first, by cubic interpolation, and its logits are averaged; sizes of
            passes are cut, images are resized with aligned corners, and whole ones padded with 0 at the right and
            bottom to a multiple of 8: the DNL authors' rule (`ms_test` in runner/seg/fcn_segmentor_test.py of
            yinmh17/DNL-Semantic-Segmentation, which sums where this averages: the same classes).
        align_corners: for restoring under the first two rules; True where the published model resizes so.

    Returns:
        `[B, K, h, w]`: logits, or probabilities for `softmax`.

    Raises:
        UsageError: as `infer`; an unknown rule; scales that leave nothing.
    """
    if average not in AVERAGES:
        raise UsageError(f"average must be one of {', '.join(AVERAGES)}, got {average!r}")
    height, width = image.shape[2:]
    # Half up for one rule, down for the other: 1025 * 0.5 is 513 for PaddleSeg and 512 as published for DGMN2.
    up = 0.5 if average == "logits" else 0
    sizes = [[int(height * scale + up), int(width * scale + up)] for scale in scales]
    if not sizes or min(map(min, sizes)) < 1:
        raise UsageError(f"scales {list(scales)}: nothing is left of an image of {width}x{height}")
    slide = {"is_slide": is_slide, "crop_size": crop_size, "stride": stride}
    flips = (flip_horizontal, flip_vertical)
    # A resize that comes last is undone from every scale in one step, as the originals do.
    direct = len(trans_info) and trans_info[-1][0] == "resize"
    back = list(trans_info) if direct else [*trans_info, ("resize", (height, width))]
    if average == "softmax":
        passes = ((resize(image, size), back) for size in sizes)
        return infer_pyramid(
            model, passes, flip_horizontal=flips[0], flip_vertical=flips[1], **slide, align_corners=align_corners
        )
    mean = _Mean()
    if average == "official":
        for size in sizes:
            scaled = resize(image, size, align_corners=True)
            for logits in _flipped_passes(model, scaled, *flips, slide, _OFFICIAL_MULTIPLE):
                mean.add(restore(logits, back, cubic=True))
        return mean.value()
    for size in sizes:
        for logits in _flipped_passes(model, resize(image, size), *flips, slide):
            mean.add(resize(logits, [height, width]))
    return restore(mean.value(), trans_info, align_corners)


@paddle.no_grad()
def infer_pyramid(
    model: paddle.nn.Layer,
    images: Iterable[tuple[paddle.Tensor, Sequence]],
    *,
    flip_horizontal: bool = False,
    flip_vertical: bool = False,
    is_slide: bool = False,
    crop_size: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    align_corners: bool = False,
) -> paddle.Tensor:
    """Mean of softmax maps at original size over pictures that were made for each scale.

    The published multi-scale rule of mmsegmentation 0.16 and DGMN2.

    Args:
        images: (`[B, 3, H, W]`, `trans_info`) for each scale; all lead back to one size.
        flip_horizontal, flip_vertical, align_corners: as for `infer_augmented`.
        is_slide, crop_size, stride: as for `infer`.

    Returns:
        Probabilities `[B, K, h, w]`.
    """
    slide = {"is_slide": is_slide, "crop_size": crop_size, "stride": stride}
    mean = _Mean()
    for image, trans_info in images:
        for logits in _flipped_passes(model, image, flip_horizontal, flip_vertical, slide):
            mean.add(F.softmax(restore(logits, trans_info, align_corners), axis=1))
    return mean.value()


def restore(
    logits: paddle.Tensor, trans_info: Sequence, align_corners: bool = False, cubic: bool = False
) -> paddle.Tensor:
    """Undoes the resizing and padding of transforms, last one first.

    Args:
        logits: `[B, K, H, W]`.
        trans_info: `("resize" | "padding", (height, width) before it)`, in the order applied.
        align_corners: for the resizing, if it is bilinear.
        cubic: resize by cubic interpolation with half-pixel centres (OpenCV's INTER_CUBIC).

    Raises:
        UsageError: an entry that is neither.
    """
    for name, (height, width) in reversed(list(trans_info)):
        height, width = int(height), int(width)
        if name == "resize" and cubic:
            if logits.shape[2:] != [height, width]:
                logits = F.interpolate(logits, [height, width], mode="bicubic")
        elif name == "resize":
            logits = resize(logits, [height, width], align_corners)
        elif name == "padding":
            logits = logits[:, :, :height, :width]
        else:
            raise UsageError(f"a transform noted {name!r} in trans_info; only resize and padding can be undone")
    return logits
