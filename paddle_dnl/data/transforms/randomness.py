# SPDX-License-Identifier: Apache-2.0
"""Random generators of the transforms: those of the process, or those of the current thread.

PaddleSeg's transforms draw from `random` and `numpy.random`, which all threads of the process share: if two threads seeded
them, each would change the other's numbers. Our transforms draw from `python_random()` and `numpy_random()`, and a thread that
loads samples in advance has generators of its own.
"""

import contextlib
import random
import threading
from collections.abc import Iterator

import numpy as np

_OWN = threading.local()


def python_random():
    """The thread's `random.Random` inside `own_generators`, else the module `random`."""
    return getattr(_OWN, "python", None) or random


def numpy_random():
    """The thread's `numpy.random.RandomState` inside `own_generators`, else the module `numpy.random`."""
    return getattr(_OWN, "numpy", None) or np.random


@contextlib.contextmanager
def own_generators(words: np.ndarray) -> Iterator[None]:
    """Gives this thread generators of its own, with the numbers that `process_generators` gives for the same seed.

    Args:
        words: the seed, an array of uint32.
    """
    _OWN.python, _OWN.numpy = random.Random(words.tobytes()), np.random.RandomState(words)
    try:
        yield
    finally:
        _OWN.python = _OWN.numpy = None


@contextlib.contextmanager
def unchanged_generators() -> Iterator[None]:
    """Restores the states of `random` and `numpy.random` at the end of the block."""
    before = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


@contextlib.contextmanager
def process_generators(words: np.ndarray) -> Iterator[None]:
    """Seeds `random` and `numpy.random`, and restores their states at the end. No other thread may use them meanwhile.

    Args:
        words: the seed, an array of uint32.
    """
    with unchanged_generators():
        random.seed(words.tobytes())
        np.random.seed(words)
        yield


def uses_own_generators(dataset) -> bool:
    """Whether the dataset and all its transforms are of this package, which draws random numbers only as described above."""
    steps = getattr(getattr(dataset, "transforms", None), "transforms", None)
    return steps is not None and all(type(part).__module__.startswith("paddle_dnl.data.") for part in (dataset, *steps))
