# SPDX-License-Identifier: Apache-2.0
"""glibc keeps memory from layer to layer, and users who chose for themselves are left alone."""

import os
import subprocess
import sys

from paddle_dnl.profile.measuring import resident_bytes
from paddle_dnl.startup.allocator import TUNABLES, VARIABLES, free_bytes, give_back

import paddle
import pytest

# Pages that ten sums of two maps of 64 MiB touch for the first time: 16384 each where memory comes from the system.
PROGRAM = """
from paddle_dnl.startup import configure_process
configure_process()
import resource, paddle
x = paddle.ones([16, 1024, 1024])
x + x
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    x + x
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _new_pages(**environment: str) -> int:
    clean = {name: value for name, value in os.environ.items() if name not in (*VARIABLES, TUNABLES)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env={**clean, **environment}
    )
    return int(done.stdout.strip().splitlines()[-1])


def test_maps_reuse_memory():
    assert _new_pages() < 50_000


@pytest.mark.parametrize("name", [*VARIABLES, TUNABLES])
def test_the_users_choice_stays(name):
    defaults = {"MALLOC_MMAP_MAX_": "65536", "MALLOC_TOP_PAD_": "131072", TUNABLES: "glibc.malloc.tcache_count=7"}
    assert _new_pages(**{name: defaults.get(name, str(1 << 20))}) > 100_000


def test_holes_are_given_back():
    """Free blocks between blocks in use stay with the process until then."""
    blocks = [paddle.ones([2 << 20]) for _ in range(20)]
    kept = blocks[::2]
    del blocks
    before = resident_bytes()
    give_back(above=1 << 40)
    assert free_bytes() is None or before - resident_bytes() < 4 << 20, "there is too little for that"
    give_back(above=32 << 20)
    assert before - resident_bytes() > 40 << 20
    assert float(sum(block.sum() for block in kept)) == 10 * (2 << 20)
