# SPDX-License-Identifier: Apache-2.0
"""Inference: whole images, sliding windows, and test-time augmentation with scales and flips."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

from paddle_dnl.data.tiling import tile_starts
from paddle_dnl.errors import UsageError
from paddle_dnl.evaluation.options import InferenceOptions
from paddle_dnl.nn.cpu.window_mean import WindowMean
from paddle_dnl.nn.resize import resize
from paddle_dnl.startup import allocator

import numpy as np
import paddle
import paddle.nn.functional as F

# The DNL authors' test program pads each pass to a multiple of this.
_OFFICIAL_MULTIPLE = 8
WHOLE = InferenceOptions()
# Fragmented free heap memory above which sliding windows return it to the system. A 20000x20000 picture with windows of
# 1024x1024 and 19 classes needs 2.9 GB with this and 5 GB without; small windows never reach it.
_FREE_BYTES = 512 << 20


@contextlib.contextmanager
def evaluating(model: paddle.nn.Layer) -> Iterator[None]:
    """Sets evaluation mode for the block; afterwards restores the mode of each layer."""
    modes = [(layer, layer.training) for layer in model.sublayers(include_self=True)]
    model.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training


def _main_logits(model, image: paddle.Tensor) -> paddle.Tensor:
    outputs = model(image)
    if not isinstance(outputs, list | tuple):
        raise UsageError(f"{type(model).__name__} must return a list of logits; it returned {type(outputs).__name__}")
    return outputs[0].astype("float32")


def _window_starts(size: tuple[int, int], options: InferenceOptions) -> tuple[list[int], list[int]]:
    """Top rows and left columns of the windows of an image of `size` (height, width).

    Raises:
        UsageError: windows that leave pixels out.
    """
    (width, height), (stride_x, stride_y) = options.crop_size, options.stride
    tops, lefts = tile_starts(size[0], height, stride_y), tile_starts(size[1], width, stride_x)
    for starts, window in ((tops, height), (lefts, width)):
        if any(after - before > window for before, after in pairwise(starts)):
            raise UsageError(
                f"stride {list(options.stride)} is larger than crop_size {list(options.crop_size)}: pixels would be skipped"
            )
    return tops, lefts


def _add_row(mean: WindowMean, model, band: paddle.Tensor | np.ndarray, top: int, lefts: list[int], width: int) -> None:
    """Runs the windows of one row, with pixels `band` `[B, C, rows, W]`, and adds their logits at row `top` of `mean`."""
    rows, columns = band.shape[2:]
    for left in lefts:
        right = min(left + width, columns)
        window = band[:, :, :, left:right]
        window = window if isinstance(window, paddle.Tensor) else paddle.to_tensor(window)
        logits = _main_logits(model, window)
        # A model that pads its input may return more than the window.
        mean.add(logits[:, :, :rows, : right - left], slice(top, top + rows), slice(left, right))
        # If kept while the next window runs, they would fragment the heap.
        del logits, window
        allocator.give_back(above=_FREE_BYTES)


@paddle.no_grad()
def slide_strips(
    model: paddle.nn.Layer,
    size: tuple[int, int],
    read: Callable[[int, int], paddle.Tensor | np.ndarray],
    options: InferenceOptions,
) -> Iterator[np.ndarray]:
    """Result of `infer` with sliding windows, in strips `[B, K, rows, W]` from top to bottom.

    Only the logits of one row of windows are in memory, which depends on the width but not on the height.

    Args:
        model: maps `[B, C, H, W]` to a list of logits.
        size: height and width of the image.
        read: (top, bottom) to these rows `[B, C, rows, W]`; called from top to bottom, with overlaps.
        options: only the windows are used.

    Raises:
        UsageError: as `infer`.
    """
    width, height = options.crop_size
    tops, lefts = _window_starts(size, options)
    mean = WindowMean(min(height, size[0]), size[1])
    for top, below in zip(tops, [*tops[1:], size[0]], strict=True):
        _add_row(mean, model, read(top, min(top + height, size[0])), 0, lefts, width)
        yield from mean.roll(below - top)


@paddle.no_grad()
def infer(model: paddle.nn.Layer, image: paddle.Tensor, options: InferenceOptions = WHOLE) -> paddle.Tensor:
    """Logits of the main output; with `is_slide` the mean over overlapping windows.

    Args:
        model: maps `[B, 3, H, W]` to a list of logits.
        image: `[B, 3, H, W]`.
        options: only the windows are used.

    Returns:
        `[B, K, H, W]`, float32.

    Raises:
        UsageError: windows that leave pixels out, or a model that returns no list.
    """
    if not options.is_slide:
        return _main_logits(model, image)
    width, height = options.crop_size
    tops, lefts = _window_starts(image.shape[2:], options)
    if len(tops) * len(lefts) == 1:
        return _main_logits(model, image)
    mean = WindowMean(*image.shape[2:])
    for top in tops:
        _add_row(mean, model, image[:, :, top : top + height], top, lefts, width)
    return mean.value()


def _flip(x: paddle.Tensor, axes: tuple[bool, bool]) -> paddle.Tensor:
    """Flips (horizontally, vertically) as a view; Paddle 3 adds and resizes it faster than the copy that `flip` makes."""
    horizontal, vertical = axes
    x = x[:, :, :, ::-1] if horizontal else x
    return x[:, :, ::-1, :] if vertical else x


def _flipped_passes(model, image, options: InferenceOptions, multiple: int = 1) -> Iterator[paddle.Tensor]:
    """Logits of `image` for every combination of flips, flipped back.

    Without windows each flipped image is zero-padded at the right and bottom to a multiple of `multiple`.
    """
    height, width = image.shape[2:]
    padding = [0, -width % multiple, 0, -height % multiple]
    for axes in ((False, False), (True, False), (False, True), (True, True)):
        if axes[0] <= options.flip_horizontal and axes[1] <= options.flip_vertical:
            flipped = _flip(image, axes)
            if any(padding) and not options.is_slide:
                flipped = F.pad(flipped, padding)
            yield _flip(infer(model, flipped, options)[:, :, :height, :width], axes)


class _Mean:
    """Mean of tensors, accumulated in place."""

    def __init__(self):
        self.total, self.count = None, 0

    def add(self, x: paddle.Tensor) -> None:
        if self.count < 2:
            # The first sum is a new tensor, since the model may keep a reference to its first output.
            self.total = x if self.total is None else self.total + x
        else:
            self.total.add_(x)
        self.count += 1

    def value(self) -> paddle.Tensor:
        return self.total if self.count == 1 else self.total.scale_(1 / self.count)


@paddle.no_grad()
def infer_augmented(
    model: paddle.nn.Layer, image: paddle.Tensor, trans_info: Sequence = (), options: InferenceOptions = WHOLE
) -> paddle.Tensor:
    """Test-time augmentation: mean over scales and flips, at the size before the transforms in `trans_info`.

    Within a pass, windows are averaged as logits for every `options.average`.

    Args:
        image: `[B, 3, H, W]`, normalised; it is resized for each scale.
        trans_info: transforms to undo, see `restore`.
        options: windows, scales, flips and average.

    Returns:
        `[B, K, h, w]`: logits, or probabilities for the average `softmax`.

    Raises:
        UsageError: as `infer`; a scale at which the image has no pixels.
    """
    height, width = image.shape[2:]
    # PaddleSeg rounds half up, the others truncate: 1025 * 0.5 is 513 for PaddleSeg and 512 as published for DGMN2.
    up = 0.5 if options.average == "logits" else 0
    sizes = [[int(height * scale + up), int(width * scale + up)] for scale in options.scales]
    if not sizes or min(map(min, sizes)) < 1:
        raise UsageError(f"scales {list(options.scales)}: nothing is left of an image of {width}x{height}")
    # A final resize is reversed in one step from each scale, as in the original programs.
    direct = len(trans_info) and trans_info[-1][0] == "resize"
    back = list(trans_info) if direct else [*trans_info, ("resize", (height, width))]
    if options.average == "softmax":
        return infer_pyramid(model, ((resize(image, size), back) for size in sizes), options)
    mean = _Mean()
    if options.average == "official":
        for size in sizes:
            scaled = resize(image, size, align_corners=True)
            for logits in _flipped_passes(model, scaled, options, _OFFICIAL_MULTIPLE):
                mean.add(restore(logits, back, cubic=True))
        return mean.value()
    for size in sizes:
        for logits in _flipped_passes(model, resize(image, size), options):
            mean.add(resize(logits, [height, width]))
    return restore(mean.value(), trans_info, options.align_corners)


def infer_scores(
    model: paddle.nn.Layer, image: paddle.Tensor, trans_info: Sequence, options: InferenceOptions
) -> paddle.Tensor:
    """Scores `[B, K, h, w]` of `image` `[B, 3, H, W]` at the size before the transforms; augmented with `aug_eval`.

    Raises:
        UsageError: as `infer_augmented`.
    """
    if options.aug_eval:
        return infer_augmented(model, image, trans_info, options)
    return restore(infer(model, image, options), trans_info, options.align_corners)


def predicted_masks(logits: paddle.Tensor) -> paddle.Tensor:
    """Multi-label masks, bool, of the shape of the logits: True where the sigmoid is above 0.5."""
    return F.sigmoid(logits.astype("float32")) > 0.5


@paddle.no_grad()
def infer_pyramid(
    model: paddle.nn.Layer, images: Iterable[tuple[paddle.Tensor, Sequence]], options: InferenceOptions = WHOLE
) -> paddle.Tensor:
    """Mean of softmax maps at original size, over images that were resized for each scale.

    The multi-scale test of mmsegmentation 0.16 and DGMN2.

    Args:
        images: (`[B, 3, H, W]`, `trans_info`) for each scale; all have the same original size.
        options: only windows, flips and `align_corners` are used.

    Returns:
        Probabilities `[B, K, h, w]`.
    """
    mean = _Mean()
    for image, trans_info in images:
        for logits in _flipped_passes(model, image, options):
            mean.add(F.softmax(restore(logits, trans_info, options.align_corners), axis=1))
    return mean.value()


@paddle.no_grad()
def restore(
    logits: paddle.Tensor, trans_info: Sequence, align_corners: bool = False, cubic: bool = False
) -> paddle.Tensor:
    """Reverse transforms: undoes resizing and padding in reverse order.

    Args:
        logits: `[B, K, H, W]`.
        trans_info: `("resize" | "padding", (height, width) before it)`, in the order applied.
        align_corners: for bilinear resizing.
        cubic: resize by cubic interpolation with half-pixel centres (OpenCV's INTER_CUBIC).

    Raises:
        UsageError: an unknown entry.
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
