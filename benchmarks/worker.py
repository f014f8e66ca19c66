"""One side of one case, in a process of its own: `python benchmarks/worker.py CASE ours|peer REPEATS`. Prints one JSON line."""

import json
import os
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))


def resident_bytes() -> int:
    """This process's memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int:
    """The most memory this process has had since `reset_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak() -> None:
    """Lets the peak start from now, where the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def main() -> None:
    """Builds the case, warms up once, times the repeats."""
    name, side, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3])
    import paddle_dnl  # noqa: F401  first: zlib before paddle

    from cases import CASES

    step = CASES[name].make(side)
    reset_peak()
    base = resident_bytes()
    step()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": seconds, "base": base, "peak": peak_bytes()}))


if __name__ == "__main__":
    main()
