# SPDX-License-Identifier: Apache-2.0
"""The generators that transforms draw from: the process's, or those of a thread.

PaddleSeg's transforms draw from `random` and `numpy.random`. These belong to the whole process, so that of two threads that set
them each would spoil the other's numbers. Ours ask here, and a thread that reads ahead has its own.
"""

import contextlib
import random
import threading
from collections.abc import Iterator

import numpy as np

_OWN = threading.local()


def python_random():
    """`random`, or a `random.Random` of this thread."""
    return getattr(_OWN, "python", None) or random


def numpy_random():
    """`numpy.random`, or a `numpy.random.RandomState` of this thread."""
    return getattr(_OWN, "numpy", None) or np.random


@contextlib.contextmanager
def own_generators(words: np.ndarray) -> Iterator[None]:
    """Gives this thread generators that yield what `random` and `numpy.random` yield after they were seeded.

    Args:
        words: as for `process_generators`.
    """
    _OWN.python, _OWN.numpy = random.Random(words.tobytes()), np.random.RandomState(words)
    try:
        yield
    finally:
        _OWN.python = _OWN.numpy = None


@contextlib.contextmanager
def unchanged_generators() -> Iterator[None]:
    """Puts the states of `random` and `numpy.random` back at the end of the block."""
    before = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


@contextlib.contextmanager
def process_generators(words: np.ndarray) -> Iterator[None]:
    """Seeds `random` and `numpy.random` and puts both back afterwards. No other thread may draw from them meanwhile.

    Args:
        words: the seed, uint32.
    """
    with unchanged_generators():
        random.seed(words.tobytes())
        np.random.seed(words)
        yield


def uses_own_generators(dataset) -> bool:
    """Whether a dataset and all its transforms are ours, so that they draw from nothing but `own_generators`."""
    steps = getattr(getattr(dataset, "transforms", None), "transforms", None)
    return steps is not None and all(type(part).__module__.startswith("paddle_dnl.data.") for part in (dataset, *steps))
