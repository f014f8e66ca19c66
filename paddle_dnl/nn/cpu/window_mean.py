# SPDX-License-Identifier: Apache-2.0
"""The mean of maps over overlapping windows.

Adding a window in place costs Paddle's CPU kernels six times what it costs NumPy, so on a CPU the sum is a NumPy array; on a GPU
it stays there.
"""

import numpy as np
import paddle


class WindowMean:
    """Sums maps of windows and counts them per pixel.

    Args:
        shape: `[B, K, H, W]` of the whole map.
        place: of the maps that come.
    """

    def __init__(self, shape: list[int], place: paddle.CPUPlace):
        self._on_cpu = place.is_cpu_place()
        self._total = np.zeros(shape, np.float32) if self._on_cpu else paddle.zeros(shape)
        self._count = np.zeros((1, 1, *shape[2:]), np.float32)

    def add(self, window: paddle.Tensor, rows: slice, columns: slice) -> None:
        """Adds `[B, K, h, w]` at these pixels."""
        self._total[:, :, rows, columns] += window.numpy() if self._on_cpu else window
        self._count[:, :, rows, columns] += 1

    def value(self) -> paddle.Tensor:
        """`[B, K, H, W]`; every pixel has to be in a window. Ends the sum."""
        if self._on_cpu:
            self._total /= self._count
            return paddle.to_tensor(self._total)
        return self._total / paddle.to_tensor(self._count)
