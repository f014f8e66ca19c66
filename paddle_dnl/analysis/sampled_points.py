# SPDX-License-Identifier: Apache-2.0
"""Sampling points of DGMN2: nine per pixel and head, with their attention weights."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from paddle_dnl.analysis.capture import layers_with_inputs
from paddle_dnl.errors import UsageError
from paddle_dnl.nn.deformable_unfold import SAMPLES
from paddle_dnl.nn.dgmn2_attention import DGMN2Attention

import numpy as np
import paddle


@dataclass(frozen=True)
class SampledAttention:
    """One attention layer on one image.

    Attributes:
        name: name of the layer in the model.
        size: (height, width) of its feature map.
        rows, columns: location of each sample in fractional positions of the feature map, `[heads, 9, height, width]`.
        weights: weight of each sample, `[heads, 9, height, width]`; they sum to 1 per head.
    """

    name: str
    size: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray
    weights: np.ndarray

    def at(self, position: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns rows, columns and weights of one query, `[heads, 9]` each.

        Raises:
            UsageError: the position does not exist.
        """
        if not 0 <= position < self.size[0] * self.size[1]:
            raise UsageError(f"{self.name}: positions must lie in [0, {self.size[0] * self.size[1]})")
        row, column = divmod(position, self.size[1])
        return self.rows[..., row, column], self.columns[..., row, column], self.weights[..., row, column]


@paddle.no_grad()
def layer_samples(name: str, layer: DGMN2Attention, x: paddle.Tensor, height: int, width: int) -> SampledAttention:
    """Computes the samples of one layer for its input tokens `[1, height * width, C]`."""
    offset, weights, _ = layer.attention_weights(x, height, width)
    offset = offset.numpy().astype(np.float64).reshape(-1, SAMPLES, 2, height, width)
    tap = np.arange(SAMPLES)[:, None, None]
    rows = np.arange(height)[:, None] + tap // 3 - 1 + offset[:, :, 0]
    columns = np.arange(width) + tap % 3 - 1 + offset[:, :, 1]
    return SampledAttention(name, (height, width), rows, columns, weights.numpy().reshape(-1, SAMPLES, height, width))


def sampled_attention(
    model: paddle.nn.Layer, image: paddle.Tensor, run: Callable | None = None
) -> Iterator[SampledAttention]:
    """Yields all DGMN2 attention layers of a model on one image `[1, 3, H, W]`, in the order of the model.

    Args:
        model, image, run: see `paddle_dnl.analysis.capture.capture_inputs`.

    Raises:
        UsageError: the model has none.
    """
    found = layers_with_inputs(model, image, DGMN2Attention, "has no DGMN2 attention", run)
    for name, layer, (x, height, width) in found:
        yield layer_samples(name, layer, x, int(height), int(width))
