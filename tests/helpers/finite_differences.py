# SPDX-License-Identifier: Apache-2.0
"""Gradients from values alone, independent of every backward pass."""

from collections.abc import Callable, Iterator

import numpy as np


def slopes(value: Callable[[], float], tensor, step: float) -> Iterator[tuple[tuple[int, ...], float]]:
    """(place, slope of `value()` there) for each number of `tensor`, which is as before whenever one is given."""
    start = tensor.numpy()
    for place in np.ndindex(*start.shape):
        sides = []
        for sign in (1, -1):
            moved = start.copy()
            moved[place] += sign * step
            tensor.set_value(moved)
            sides.append(value())
        tensor.set_value(start)
        yield place, (sides[0] - sides[1]) / (2 * step)
