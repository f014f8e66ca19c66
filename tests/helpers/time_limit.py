# SPDX-License-Identifier: Apache-2.0
"""A limit of time for code that may wait for ever, such as a reader of a pipe: a failed test, not a run that hangs."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raises AssertionError in a block that takes longer; for the main thread."""

    def stop(*_):
        raise AssertionError(f"still running after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
