# SPDX-License-Identifier: Apache-2.0
"""The mean of maps over overlapping windows.

Adding a window in place costs Paddle's CPU kernels six times what it costs NumPy, so on a CPU the sum is a NumPy array; on a GPU
it stays there.
"""

from collections.abc import Iterator

import numpy as np
import paddle

# Elements of one strip of `roll`: 32 MB in float32.
_STRIP = 1 << 23


class WindowMean:
    """Sums maps of windows and counts them per pixel.

    Args:
        rows, columns: of the map that is held.
    """

    def __init__(self, rows: int, columns: int):
        self._size = (rows, columns)
        self._total = self._count = None
        self._on_cpu = True

    def add(self, window: paddle.Tensor, rows: slice, columns: slice) -> None:
        """Adds `[B, K, h, w]` at these pixels."""
        if self._total is None:
            self._on_cpu = window.place.is_cpu_place()
            shape = [*window.shape[:2], *self._size]
            self._total = np.zeros(shape, np.float32) if self._on_cpu else paddle.zeros(shape)
            self._count = np.zeros((1, 1, *self._size), np.float32)
        self._total[:, :, rows, columns] += window.numpy() if self._on_cpu else window
        self._count[:, :, rows, columns] += 1

    def value(self) -> paddle.Tensor:
        """`[B, K, H, W]`; every pixel has to be in a window. Ends the sum."""
        if self._on_cpu:
            self._total /= self._count
            return paddle.to_tensor(self._total)
        return self._total / paddle.to_tensor(self._count)

    def roll(self, done: int) -> Iterator[np.ndarray]:
        """The first `done` rows in strips `[B, K, rows, W]`; then those below move up in their place, and new ones are empty."""
        batch, classes, rows, columns = self._total.shape
        step = max(1, _STRIP // (batch * classes * columns))
        for top in range(0, done, step):
            part = (slice(None), slice(None), slice(top, min(top + step, done)))
            if self._on_cpu:
                yield self._total[part] / self._count[part]
            else:
                yield (self._total[part] / paddle.to_tensor(self._count[part])).numpy()
        kept = rows - done
        for buffer in (self._total, self._count):
            # One map after the other: source and target overlap, of which NumPy makes a copy.
            for item in range(buffer.shape[0]):
                for one in range(buffer.shape[1]):
                    buffer[item, one, :kept] = buffer[item, one, done:]
            buffer[:, :, kept:] = 0
