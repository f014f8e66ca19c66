# SPDX-License-Identifier: Apache-2.0
"""Allocator settings: glibc keeps freed blocks for the next layer instead of returning them to the system.

glibc takes blocks of more than 32 MiB from the system and gives them back one by one. The system hands out every page of
such a block filled with zeros, at its first touch: a sum of two maps of 64 MiB takes 43 ms, of which 37 are that, and a
training step of DNLNet-R50 at 512 x 1024 33 s in place of 25. Blocks of the heap stay with the process and are merged again.
"""

import ctypes
import os

# Of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4

# Blocks from here on still come from the system. Those of a 512x1024 crop are below; larger pictures' would leave holes that
# the next scale's do not fit: 4.1 in place of 3.5 GB for one of 2560x1280 and its mirror image.
_HEAP_BLOCK_BYTES = 96 << 20
# Free memory kept at the end of the heap. Larger values made no step faster, and the peak larger.
_KEPT_BYTES = 128 << 20

# Variables by which a user sets the allocator of a whole process.
VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
TUNABLES = "GLIBC_TUNABLES"


def choose() -> None:
    """Sets the allocator's thresholds for this process, where it is glibc's and the user has not set them."""
    if any(name in os.environ for name in VARIABLES) or "glibc.malloc." in os.environ.get(TUNABLES, ""):
        return
    mallopt = _function("mallopt")
    if mallopt is None:
        return
    # Before 2.35 glibc refuses thresholds above 32 MiB, and can only be told to take nothing from the system directly.
    mallopt(_MMAP_THRESHOLD, _HEAP_BLOCK_BYTES) or mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


class _Usage(ctypes.Structure):
    """`struct mallinfo2`: bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def free_bytes() -> int | None:
    """What lies free between blocks in use and at the heap's end; None where the C library does not tell (glibc before 2.33)."""
    usage = _function("mallinfo2")
    if usage is None:
        return None
    usage.restype = _Usage
    return usage().fordblks


def give_back(above: int = _KEPT_BYTES) -> None:
    """Returns to the system what lies free between blocks in use, so that what comes next may be larger elsewhere.

    Taking it again costs time. Between the forward and the backward pass of DNLNet-R50 at 512 x 1024 this lowers a step's peak
    from 3.7 to 3.4 GB for some tenths of a second; at 64 x 64, where 54 MB lie free, a step takes 20 % longer for nothing.

    Args:
        above: bytes; where less lies free, nothing is done.
    """
    malloc_trim, free = _function("malloc_trim"), free_bytes()
    if malloc_trim is not None and (free is None or free > above):
        malloc_trim(0)


def _function(name: str):
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):  # other systems' libraries
        return None
