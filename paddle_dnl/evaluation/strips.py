# SPDX-License-Identifier: Apache-2.0
"""Predicts large pictures in strips of rows, so that the scores of a whole picture are never in memory.

Scores of 19 classes at 20000x20000 pixels are 30 GB; those of one row of windows are 0.8 GB, and of one strip 32 MB.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from paddle_dnl.evaluation.inference import WHOLE, infer, slide_strips
from paddle_dnl.evaluation.options import InferenceOptions
from paddle_dnl.nn.resize import resize

import numpy as np
import paddle

if TYPE_CHECKING:
    from paddle_dnl.data.transforms import Compose

Announce = Callable[[tuple[int, int], tuple[int, int]], None] | None
# Values of one strip of scores: 32 MB in float32.
_STRIP = 1 << 23
_TRANSFORMS = "val_dataset.transforms"


def label_strips(
    model: paddle.nn.Layer, compose: "Compose", rows, name, options: InferenceOptions = WHOLE, announce: Announce = None
) -> Iterator[np.ndarray]:
    """Yields the classes of a picture in strips `[rows, W]`, uint8 (uint16 above 256 classes), as computed at once.

    With sliding windows and pointwise transforms (Normalize) no array has the size of the picture. Transforms that change the
    size, and inference on the whole image, need the whole input; scores still come in strips.

    Args:
        model: maps `[B, C, H, W]` to a list of logits.
        compose: the transforms of the picture.
        rows: the picture, see `paddle_dnl.data.images.picture_rows`.
        name: name of the picture for errors.
        options: without `aug_eval`.
        announce: called with the sizes of network input and picture before the model runs.

    Raises:
        DataError: the transforms cannot take the picture.
        UsageError: windows that leave pixels out.
    """
    height, width = rows.size
    announce = announce or (lambda image, original: None)
    if options.is_slide and compose.is_pointwise:
        announce(rows.size, rows.size)

        def read(top: int, bottom: int) -> np.ndarray:
            pixels = rows.read(top, bottom)
            step = max(1, _STRIP // pixels[0].size)
            # In parts: the transforms hold several float32 copies of what they are given.
            for start in range(0, len(pixels), step):
                part = compose.picture(pixels[start : start + step], name, _TRANSFORMS)["img"]
                if start == 0:
                    whole = np.empty((1, len(part), len(pixels), width), part.dtype)
                whole[0, :, start : start + step] = part
            return whole

        strips, size, info = slide_strips(model, rows.size, read, options), rows.size, []
    else:
        image, info = network_input(compose, rows.read(0, height), name)
        size = tuple(image.shape[2:])
        announce(size, rows.size)
        if options.is_slide:
            strips = slide_strips(model, size, lambda top, bottom: image[:, :, top:bottom], options)
        else:
            whole = infer(model, image, options)
            step = max(1, _STRIP // (whole.shape[1] * max(size[1], width)))  # small also after a resize to `width`
            strips = (whole[:, :, top : top + step].numpy() for top in range(0, whole.shape[2], step))
    scores = (strip[0] for strip in strips)
    for transform, before in reversed(list(info)):
        before = tuple(map(int, before))
        if transform == "resize":
            scores = _resized(scores, size, before, options.align_corners)
        else:
            scores = _cropped(scores, before)
        size = before
    for strip in scores:
        yield strip.argmax(0).astype(np.uint8 if len(strip) <= 256 else np.uint16)


def network_input(compose: "Compose", pixels: np.ndarray, name) -> tuple[paddle.Tensor, Sequence]:
    """Network input `[1, C, H, W]`, and `trans_info` for `inference.restore`."""
    data = compose.picture(pixels, name, _TRANSFORMS)
    return paddle.to_tensor(data["img"][None]), data["trans_info"]


def _cropped(strips: Iterator[np.ndarray], before: tuple[int, int]) -> Iterator[np.ndarray]:
    """Removes padding at the right and bottom."""
    top = 0
    for strip in strips:
        if top < before[0]:
            yield strip[:, : before[0] - top, : before[1]]
        top += strip.shape[1]


def _resized(strips: Iterator[np.ndarray], size, before: tuple[int, int], align_corners: bool) -> Iterator[np.ndarray]:
    """Bilinear interpolation of scores `[K, H, W]` given in strips; equal to `resize` of the whole up to rounding.

    Args:
        strips: from top to bottom.
        size: height and width of all strips together.
        before: height and width of the result.
        align_corners: see `paddle_dnl.nn.resize.resize`.
    """
    if tuple(size) == before:
        yield from strips
        return
    # In float32, like Paddle's own neighbours and weights; with one result row it is the first source row.
    target, half = np.arange(before[0], dtype=np.float32), np.float32(0.5)
    inner = 1 if align_corners else 0
    ratio = np.float32(size[0] - inner) / np.float32(before[0] - inner) if before[0] > 1 else np.float32(0)
    source = target * ratio if align_corners else np.maximum((target + half) * ratio - half, 0)
    upper = np.minimum(source.astype(np.int64), size[0] - 1)
    lower = np.minimum(upper + 1, size[0] - 1)
    weight = (source - upper.astype(np.float32))[:, None]
    held, first, done = None, 0, 0  # held rows of the source, index of the first one, finished rows of the result
    for strip in strips:
        wide = resize(paddle.to_tensor(strip[None]), [strip.shape[1], before[1]], align_corners).numpy()[0]
        held = wide if held is None else np.concatenate([held, wide], axis=1)
        step = max(1, _STRIP // (len(held) * before[1]))
        # Rows of the result whose lower source row is available.
        ready = int(np.searchsorted(lower, first + held.shape[1]))
        while done < ready:
            part = slice(done, min(done + step, ready))
            above = held[:, upper[part] - first]
            yield above + (held[:, lower[part] - first] - above) * weight[part]
            done = part.stop
        if done < before[0]:
            over = min(int(upper[done]) - first, held.shape[1])
            held, first = held[:, over:], first + over
