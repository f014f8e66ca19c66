"""Lets Paddle's matrix products use AVX2 on AMD processors.

Paddle's wheels carry Intel's MKL-ML of 2019. It asks the processor for its maker's name, and on one that is not Intel's takes
its oldest kernels: 46 in place of 162 GFLOP/s on 2 cores of an EPYC. `MKL_DEBUG_CPU_TYPE=5`, which releases of that year
read at their first product, names the AVX2 kernels; newer ones and other libraries do not know the variable.
"""

import os
from pathlib import Path

VARIABLE = "MKL_DEBUG_CPU_TYPE"
_AVX2 = "5"
_NEEDED = {"avx2", "fma"}


def needs_help(cpuinfo: str) -> bool:
    """Whether MKL would pass over the AVX2 kernels of this processor, described as in Linux's /proc/cpuinfo."""
    fields = dict(line.split(":", 1) for line in reversed(cpuinfo.splitlines()) if ":" in line)
    found = {name.strip(): value.split() for name, value in fields.items()}
    return found.get("vendor_id") in (["AuthenticAMD"], ["HygonGenuine"]) and set(found.get("flags", [])) >= _NEEDED


def choose() -> None:
    """Sets the variable where it helps and the user has not set it; child processes inherit it."""
    if VARIABLE in os.environ:
        return
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return
    if needs_help(cpuinfo):
        os.environ[VARIABLE] = _AVX2
