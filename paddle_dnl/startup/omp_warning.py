# SPDX-License-Identifier: Apache-2.0
"""Suppresses the two warning lines that Paddle prints at its import when `OMP_NUM_THREADS` is above 1.

They warn about oversubscribed cores in data-parallel training and about OpenBLAS. `threads.choose` divides the cores
among the ranks, and Paddle's wheels use MKL or oneDNN; the log of every training has the number of threads.
"""

import sys

_LINES = ("WARNING: OMP_NUM_THREADS set to", "PLEASE USE OMP_NUM_THREADS WISELY.")


class _Filter:
    """A stream that drops `_LINES`, forwards other text, and removes itself from `sys.stderr` after the last line."""

    def __init__(self, stream):
        self._stream = stream
        self._in_warning = self._is_last = False

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if text.startswith(_LINES):
            self._in_warning, self._is_last = True, text.startswith(_LINES[-1])
            return len(text)
        if self._in_warning and text == "\n":  # `print` writes it separately
            self._in_warning = False
            if self._is_last and sys.stderr is self:
                sys.stderr = self._stream
            return len(text)
        return self._stream.write(text)


def leave_out() -> None:
    """Filters `sys.stderr` until Paddle is imported; does nothing if Paddle is already imported or stderr is None."""
    if "paddle" not in sys.modules and sys.stderr is not None and not isinstance(sys.stderr, _Filter):
        sys.stderr = _Filter(sys.stderr)
