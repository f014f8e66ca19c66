# SPDX-License-Identifier: Apache-2.0
"""One side of one case, in a process of its own: `python benchmarks/worker.py CASE ours|peer REPEATS`. Prints one JSON line."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from paddle_dnl.startup import allocator, configure_process  # noqa: E402  first: zlib before paddle


def reset_peak() -> None:
    """Lets the peak start from now, where the system allows it: what building both sides' models left behind is given back."""
    allocator.give_back(above=0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def main() -> None:
    """Builds the case, warms up once, times the repeats."""
    name, side, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if "OMP_NUM_THREADS" in os.environ:  # else Paddle is measured as it starts by itself
        configure_process()
    from paddle_dnl.profile.measuring import peak_bytes, resident_bytes, seconds_of_runs

    from cases import CASES

    step = CASES[name].make(side)
    reset_peak()
    base = resident_bytes()
    seconds = seconds_of_runs(step, warmup=1, repeats=repeats)
    print(json.dumps({"seconds": seconds, "base": base, "peak": peak_bytes()}))


if __name__ == "__main__":
    main()
