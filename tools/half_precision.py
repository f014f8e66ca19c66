# SPDX-License-Identifier: Apache-2.0
"""Trains each family for some steps in float32 and in simulated float16 and bfloat16; writes docs/half_precision.md.

DNLNet takes about four minutes of one core per family, DMNet and DGMN2 ten and more. `--families` selects some; the page says
which were not run, and is written after each. Exit status 1 where a loss is not finite or ends further from float32's than LIMIT.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from paddle_dnl.cli._run import run  # noqa: E402
from paddle_dnl.files.atomic import write_text  # noqa: E402

LIMIT = 0.05


def page(rows: dict[str, str], steps: int) -> str:
    """The page with a line of the table for each family that was run."""
    from paddle_dnl.gpu.coverage import FAMILIES

    import paddle

    lines = [
        "# Half precision, simulated",
        "",
        f"Made by `tools/half_precision.py` with Paddle {paddle.__version__} on a CPU; **nothing here ran on a GPU**. Each "
        f"family (ResNet18 or DGMN2-tiny) was trained for {steps} steps on the quick start's scenes (crops of 128x128, "
        "batch 2) in float32, and twice more from the same start with the inputs, outputs and gradients of every convolution "
        "and matrix product rounded to float16 (with loss scaling) or bfloat16, as AMP at level O1 does "
        "(`paddle_dnl/gpu/rounding.py` says what stays different). `End` is the mean loss of the last fifth; the two "
        "percentages are its distance from float32's. `Skipped` counts updates that float16 skipped. `Margin` is 65504, the "
        f"largest float16, over the largest output of any layer, which is named. Limit: {LIMIT:.0%}.",
        "",
        "| Family | End, float32 | float16 | Skipped | bfloat16 | Margin | Layer |",
        "|---|---|---|---|---|---|---|",
        *(rows.get(family, f"| {family} | not run | | | | | |") for family in FAMILIES),
    ]
    return "\n".join(lines) + "\n"


def main(argv=None) -> int:
    """Trains and writes the page; returns the exit status."""
    from paddle_dnl.gpu.coverage import FAMILIES
    from paddle_dnl.gpu.limits import LARGEST_FLOAT16
    from paddle_dnl.gpu.simulation import small_config, train_in

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="data/mini_cityscapes", help="as made by tools/data/make_mini_cityscapes.py")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    args = parser.parse_args(argv)
    rows, passed = {}, True
    for family in args.families:
        curves = {p: train_in(small_config(family, args.data, args.steps), p) for p in ("fp32", "fp16", "bf16")}
        end = curves["fp32"].end
        distances = {p: curves[p].end / end - 1 for p in ("fp16", "bf16")}
        passed &= all(c.is_finite for c in curves.values()) and max(map(abs, distances.values())) <= LIMIT
        layer, largest = max(curves["fp16"].largest.items(), key=lambda item: item[1])
        rows[family] = (
            f"| {family} | {end:.4f} | {distances['fp16']:+.2%} | {curves['fp16'].skipped} | {distances['bf16']:+.2%} | "
            f"{LARGEST_FLOAT16 / largest:.0f} | `{layer}` |"
        )
        print(rows[family], flush=True)
        write_text(ROOT / "docs/half_precision.md", page(rows, args.steps), own=True)
    return 0 if passed else 1


if __name__ == "__main__":
    run("half_precision")
