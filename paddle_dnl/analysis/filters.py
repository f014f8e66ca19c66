# SPDX-License-Identifier: Apache-2.0
"""Filters that DMNet generates for an image."""

from collections.abc import Callable

from paddle_dnl.analysis.capture import layers_with_inputs
from paddle_dnl.nn.dynamic_filter import DynamicFilter

import numpy as np
import paddle


@paddle.no_grad()
def dynamic_filters(model: paddle.nn.Layer, image: paddle.Tensor, run: Callable | None = None) -> dict[str, np.ndarray]:
    """Returns module name -> its filters `[channels, k, k]` for an image `[1, 3, H, W]`, in the order of the model.

    Args:
        model, image, run: see `paddle_dnl.analysis.capture.capture_inputs`.

    Raises:
        UsageError: the model has no dynamic filters.
    """
    found = layers_with_inputs(model, image, DynamicFilter, "makes no filters", run)
    return {name: layer.filters(x)[0].numpy() for name, layer, (x,) in found}


def strongest(filters: np.ndarray, count: int) -> np.ndarray:
    """Returns the `count` filters with the largest norm in descending order; equal ones in their original order."""
    norms = np.sqrt((filters.astype(np.float64) ** 2).sum((1, 2)))
    return filters[np.argsort(-norms, kind="stable")[:count]]
