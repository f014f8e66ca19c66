# SPDX-License-Identifier: Apache-2.0
"""Suppresses the two warning lines that Paddle prints at its import when `OMP_NUM_THREADS` is above 1.

They warn of oversubscribed cores in data parallel training and of OpenBLAS. `threads.choose` divides the cores among the ranks,
and Paddle's wheels compute with MKL or oneDNN; the number of threads is in the log of every training.
"""

import sys

_LINES = ("WARNING: OMP_NUM_THREADS set to", "PLEASE USE OMP_NUM_THREADS WISELY.")


class _Filter:
    """A stream that drops `_LINES`, forwards everything else, and removes itself from `sys.stderr` after the last of them."""

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
    """Filters `sys.stderr` until Paddle has been imported; does nothing when it has been, or without a stderr."""
    if "paddle" not in sys.modules and sys.stderr is not None and not isinstance(sys.stderr, _Filter):
        sys.stderr = _Filter(sys.stderr)
