# SPDX-License-Identifier: Apache-2.0
"""Input shape of an export, and input batches for its verification."""

from dataclasses import dataclass

from paddle_dnl import registry
from paddle_dnl.data.images.resizing import resized
from paddle_dnl.data.transforms.compose import Compose
from paddle_dnl.deployment.runtime.deploy_config import require_input_size
from paddle_dnl.errors import ExportError, PaddleDnlError
from paddle_dnl.log import logger

import cv2
import numpy as np
import paddle

# Two sizes to verify a graph of free size. The first is no multiple of a stride or pooling grid; models that need multiples
# of 32 are verified with `_MULTIPLES`.
_SIZES = ((97, 161), (128, 96))
_MULTIPLES = ((96, 160), (128, 96))
_BATCHES = (2, 1)


class FreeSizeError(ExportError):
    """The model has no graph for free sizes; a fixed size may work."""


def check_shape(input_shape, channels: int) -> list[int]:
    """`[N, C, H, W]` with -1 for free dimensions; without `input_shape` all but the channels are free.

    Raises:
        ExportError: not four numbers, or other channels than the images.
    """
    if input_shape is None:
        return [-1, channels, -1, -1]
    shape = [-1 if value is None else int(value) for value in input_shape]
    if len(shape) != 4 or any(v == 0 or v < -1 for v in shape) or shape[1] == -1:
        raise ExportError(
            f"--input_shape {input_shape}: expected batch, channels, height and width, for instance 1 {channels} 512 1024"
        )
    if shape[1] != channels:
        raise ExportError(f"--input_shape {input_shape}: has {shape[1]} channels, the model's images have {channels}")
    require_input_size(shape, "--input_shape")
    return shape


def example_batch(shape: list[int], transforms: list[dict]) -> np.ndarray:
    """A realistic batch `[N, C, H, W]`, float32: smooth blobs with noise, preprocessed by `transforms`.

    Args:
        shape: of the network's input.
        transforms: as in a `val_dataset`.
    """
    batch, channels, height, width = shape

    def preprocess(picture: np.ndarray, settings: list[dict]) -> np.ndarray:
        steps = [registry.build(step, "transform") for step in settings]
        return Compose(steps, img_channels=channels)({"img": picture.copy()})["img"]

    rng = np.random.default_rng(0)
    images = []
    for _ in range(batch):
        blobs = rng.uniform(0, 255, (6, 8, channels)).astype(np.float32)
        picture = resized(blobs, (width, height), cv2.INTER_CUBIC)
        picture = np.clip(picture + rng.normal(0, 12, picture.shape), 0, 255).astype(np.float32)
        try:
            image = preprocess(picture, transforms)
        except ValueError:
            # Some transforms refuse some sizes, such as padding to a smaller one. Only the range of values matters here.
            image = preprocess(picture, [step for step in transforms if step["type"].startswith("Normalize")])
        if image.shape[1:] != (height, width):
            image = resized(image.transpose(1, 2, 0), (width, height)).transpose(2, 0, 1)
        images.append(image)
    return np.stack(images).astype(np.float32)


@dataclass
class Reference:
    """An input `[N, C, H, W]` and the logits `[N, K, H, W]` of the dynamic graph."""

    batch: np.ndarray
    logits: np.ndarray


def reference_runs(model: paddle.nn.Layer, shape: list[int], transforms: list[dict]) -> list[Reference]:
    """Reference runs of the model: one for a fixed size, two for free sizes.

    Args:
        model: in evaluation mode.
        shape: from `check_shape`.
        transforms: see `example_batch`.

    Raises:
        FreeSizeError: sizes are free, and the model accepts neither arbitrary ones nor multiples of 32.
        ExportError: the model refuses the fixed size.
    """
    name = type(model).__name__
    if -1 not in shape[2:]:
        found = _runs(model, [_filled(shape, _BATCHES[0], *shape[2:])], transforms)
        if isinstance(found, str):
            raise ExportError(f"--input_shape {' '.join(map(str, shape))}: {name} refuses it: {found}")
        return found
    found = _runs(model, [_filled(shape, n, *size) for n, size in zip(_BATCHES, _SIZES, strict=True)], transforms)
    if not isinstance(found, str):
        return found
    problem = found
    found = _runs(model, [_filled(shape, n, *size) for n, size in zip(_BATCHES, _MULTIPLES, strict=True)], transforms)
    if isinstance(found, str):
        raise FreeSizeError(f"{name} does not accept every size: {problem}")
    logger.warning(f"{name} does not accept every size ({problem}); the export is tried with multiples of 32")
    return found


def _filled(shape: list[int], batch: int, height: int, width: int) -> list[int]:
    free = (batch, shape[1], height, width)
    return [given if value == -1 else value for value, given in zip(shape, free, strict=True)]


def _runs(model, shapes: list[list[int]], transforms: list[dict]) -> list[Reference] | str:
    """The runs, or the error of the model."""
    found = []
    for shape in shapes:
        batch = example_batch(shape, transforms)
        try:
            with paddle.no_grad():
                found.append(Reference(batch, model(paddle.to_tensor(batch))[0].numpy()))
        except PaddleDnlError:
            raise
        except Exception as error:  # whatever its layers raise
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return f"{type(error).__name__}: {(lines or [''])[-1][:300]}"
    return found
