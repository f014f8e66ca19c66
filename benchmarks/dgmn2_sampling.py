# SPDX-License-Identifier: Apache-2.0
"""DGMN2's attention with each implementation of its sampling, forward and forward + backward: which one `auto` should take.

python benchmarks/dgmn2_sampling.py --size 97
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import paddle_dnl  # noqa: E402,F401
from paddle_dnl.nn.dgmn2_attention import DGMN2Attention  # noqa: E402

import paddle  # noqa: E402

# Width and heads of the four stages.
STAGES = ((64, 1), (128, 2), (320, 5), (512, 8))


def seconds(step, repeats: int) -> float:
    """The fastest of some runs, after one to warm up."""
    step()
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - began)
    return best


def measure(dim: int, heads: int, size: int, implementation: str, repeats: int) -> tuple[float, float]:
    """Seconds of the forward pass without gradients, and of forward + backward."""
    layer = DGMN2Attention(dim, heads, (size, size), unfold=implementation)
    x = paddle.randn([1, size * size, dim])

    def forward():
        with paddle.no_grad():
            layer(x, size, size)

    def both():
        layer(x, size, size).sum().backward()
        layer.clear_gradients()

    return seconds(forward, repeats), seconds(both, repeats)


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=97, help="height and width of the map")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    where = f"{os.environ['OMP_NUM_THREADS']} threads, Paddle {paddle.__version__}, {paddle.get_device()}"
    print(f"map {args.size} x {args.size}, {where}")
    print("| stage | deform forward s | grid forward s | deform both s | grid both s |\n|---|---:|---:|---:|---:|")
    for stage, (dim, heads) in enumerate(STAGES, 1):
        deform = measure(dim, heads, args.size, "deform", args.repeats)
        grid = measure(dim, heads, args.size, "grid", args.repeats)
        print(
            f"| {stage} ({dim} channels) | {deform[0]:.2f} | {grid[0]:.2f} | {deform[1]:.2f} | {grid[1]:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
