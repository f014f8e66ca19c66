"""Lets Paddle's matrix products use AVX2 on AMD processors.

Paddle's wheels carry Intel's MKL-ML of 2019. It asks the processor for its maker's name, and on one that is not Intel's takes
its oldest kernels: 46 in place of 162 GFLOP/s on 2 cores of an EPYC. `MKL_DEBUG_CPU_TYPE=5`, which releases of that year
read at their first product, names the AVX2 kernels; newer ones and other libraries do not know the variable.
"""

import itertools
import os

VARIABLE = "MKL_DEBUG_CPU_TYPE"
_AVX2 = "5"
_NEEDED = {"avx2", "fma"}


def needs_help(cpuinfo: str) -> bool:
    """Whether MKL would pass over the AVX2 kernels of a processor, described as in Linux's /proc/cpuinfo."""
    fields = (line.split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    found = {name.strip(): value.split() for name, value in fields}
    return found.get("vendor_id") in (["AuthenticAMD"], ["HygonGenuine"]) and set(found.get("flags", [])) >= _NEEDED


def choose() -> None:
    """Sets the variable where it helps and the user has not set it; child processes inherit it."""
    if VARIABLE in os.environ:
        return
    try:
        # The first processor alone, up to its blank line: the system asks every core for the others' lines.
        with open("/proc/cpuinfo") as file:
            cpuinfo = "".join(itertools.takewhile(str.strip, file))
    except OSError:  # not Linux
        return
    if needs_help(cpuinfo):
        os.environ[VARIABLE] = _AVX2
