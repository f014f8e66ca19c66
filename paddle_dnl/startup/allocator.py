# SPDX-License-Identifier: Apache-2.0
"""Allocator settings: glibc keeps freed blocks for the next layer instead of returning them to the system.

By default glibc allocates blocks over 32 MiB with mmap and unmaps them when they are freed. The kernel zeroes each page
of such a block at its first access: a sum of two maps of 64 MiB takes 43 ms, of which 37 ms are for zeroing, and a
training step of DNLNet-R50 at 512 x 1024 takes 33 s instead of 25. Blocks of the heap stay in the process, and adjacent
free blocks are merged.
"""

import ctypes
import os

# Constants of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4

# Larger blocks still come from mmap. Blocks of a 512x1024 crop are smaller. Blocks of larger pictures would fragment
# the heap, since those of the next scale do not fit into the gaps: 4.1 instead of 3.5 GB for a picture of 2560x1280 and
# its mirror image.
_HEAP_BLOCK_BYTES = 96 << 20
# Free memory to keep at the end of the heap. Larger values increased the peak and made no step faster.
_KEPT_BYTES = 128 << 20

# Environment variables with which a user configures the allocator.
VARIABLES = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
TUNABLES = "GLIBC_TUNABLES"


def choose() -> None:
    """Sets the thresholds of glibc's allocator, unless the user has set them or the C library is another one."""
    if any(name in os.environ for name in VARIABLES) or "glibc.malloc." in os.environ.get(TUNABLES, ""):
        return
    mallopt = _function("mallopt")
    if mallopt is None:
        return
    # glibc before 2.35 refuses thresholds above 32 MiB; there mmap can only be disabled completely.
    mallopt(_MMAP_THRESHOLD, _HEAP_BLOCK_BYTES) or mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


class _Usage(ctypes.Structure):
    """`struct mallinfo2`; sizes in bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def free_bytes() -> int | None:
    """Returns the free bytes of the heap, between used blocks and at its end; None without glibc 2.33 or later."""
    usage = _function("mallinfo2")
    if usage is None:
        return None
    usage.restype = _Usage
    return usage().fordblks


def give_back(above: int = _KEPT_BYTES) -> None:
    """Returns free memory of the heap to the system, so that later blocks do not increase the peak.

    Allocating it again costs time. Between the forward and the backward pass of DNLNet-R50 at 512 x 1024 this lowers
    the peak of a step from 3.7 to 3.4 GB and takes some tenths of a second; at 64 x 64, where 54 MB are free, a step
    takes 20 % longer without any benefit.

    Args:
        above: do nothing if fewer bytes are free.
    """
    malloc_trim, free = _function("malloc_trim"), free_bytes()
    if malloc_trim is not None and (free is None or free > above):
        malloc_trim(0)


def _function(name: str):
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):  # libraries of other systems
        return None
