# SPDX-License-Identifier: Apache-2.0
"""Makes Paddle's matrix products use AVX2 on AMD processors.

Paddle's wheels contain Intel's MKL-ML of 2019. It selects its oldest kernels on processors of other vendors: 46 instead
of 162 GFLOP/s on 2 cores of an EPYC. `MKL_DEBUG_CPU_TYPE=5`, which MKL of that year reads at its first product, selects
the AVX2 kernels; newer releases and other libraries ignore the variable.
"""

import itertools
import os

VARIABLE = "MKL_DEBUG_CPU_TYPE"
_AVX2 = "5"
_NEEDED = {"avx2", "fma"}


def processor(path: str = "/proc/cpuinfo") -> dict[str, str]:
    """Returns the fields of the first processor in /proc/cpuinfo; empty on systems other than Linux."""
    try:
        # Reads only up to the first blank line, because the kernel queries each core for the lines that follow.
        with open(path) as file:
            fields = [line.split(":", 1) for line in itertools.takewhile(str.strip, file) if ":" in line]
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, value in fields}


def needs_help(fields: dict[str, str]) -> bool:
    """Whether MKL would not use the AVX2 kernels that a `processor` supports."""
    flags = set(fields.get("flags", "").split())
    return fields.get("vendor_id") in ("AuthenticAMD", "HygonGenuine") and flags >= _NEEDED


def choose() -> None:
    """Sets the variable if it helps and the user has not set it; child processes inherit it."""
    if VARIABLE not in os.environ and needs_help(processor()):
        os.environ[VARIABLE] = _AVX2
