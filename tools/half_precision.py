# SPDX-License-Identifier: Apache-2.0
"""Trains each family for some steps in float32 and in simulated float16 and bfloat16; writes docs/half_precision.md.

DNLNet takes about four minutes of one core per family, DMNet and DGMN2 ten and more. `--families` selects some. The page is
written after each family and keeps the rows of the others, so that it can be made in parts, also by several processes at a time;
it says which families were not run. Rows made with other settings are not mixed: the program refuses such a page.
Exit status 1 where a loss is not finite or ends further from float32's than LIMIT.
"""

import argparse
import contextlib
import datetime
import fcntl
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from paddle_dnl.cli._run import run  # noqa: E402
from paddle_dnl.errors import UsageError  # noqa: E402
from paddle_dnl.files.atomic import write_text  # noqa: E402

LIMIT = 0.05
_NOT_RUN = "not run"


def page(rows: dict[str, str], settings: str) -> str:
    """The page with a line of the table for each family that was run."""
    from paddle_dnl.gpu.coverage import FAMILIES

    lines = [
        "# Half precision, simulated",
        "",
        "Made by `tools/half_precision.py` on a CPU; **nothing here ran on a GPU**. Each family (ResNet18 or DGMN2-tiny) was "
        "trained on the quick start's scenes in float32, and twice more from the same start with the inputs, outputs and "
        "gradients of every convolution and matrix product rounded to float16 (with loss scaling) or bfloat16, as AMP at level "
        "O1 does (`paddle_dnl/gpu/rounding.py` says what stays different). `End` is the mean loss of the last fifth; the two "
        "percentages are its distance from float32's. `Skipped` counts updates that float16 skipped. `Margin` is 65504, the "
        "largest float16, over the largest output of any layer, which is named. `Made` is the date and, where recorded, the "
        f"commit of the checkout. Limit: {LIMIT:.0%}.",
        "",
        settings,
        "",
        "| Family | End, float32 | float16 | Skipped | bfloat16 | Margin | Layer | Made |",
        "|---|---|---|---|---|---|---|---|",
        *(rows.get(family, f"| {family} | {_NOT_RUN} | | | | | | |") for family in FAMILIES),
    ]
    return "\n".join(lines) + "\n"


def settings_line(steps: int) -> str:
    """What the rows of one page have in common."""
    import paddle

    return f"Settings: Paddle {paddle.__version__}, {steps} steps, crops of 128x128, batch 2."


def rows_of(path: Path, settings: str) -> dict[str, str]:
    """The rows of families that were run, by family; none where there is no page.

    Raises:
        UsageError: the page's rows were made with other settings.
    """
    from paddle_dnl.gpu.coverage import FAMILIES

    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    if settings not in lines:
        found = next((line for line in lines if line.startswith("Settings: ")), "no line of settings")
        raise UsageError(
            f"{path}: has {found!r}, this run {settings!r}: remove that page or write another with --page FILE"
        )
    table = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}
    return {family: row for family, row in table.items() if family in FAMILIES and f" | {_NOT_RUN} |" not in row}


def add_row(path: Path, settings: str, family: str, row: str) -> None:
    """Writes the page with this row and those of the other families that it has by now, as one step among processes.

    Raises:
        UsageError: as `rows_of`.
    """
    folder = os.open(
        path.parent, os.O_RDONLY
    )  # the page itself is replaced by each writing, so the lock is on its folder
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        write_text(path, page(rows_of(path, settings) | {family: row}, settings), own=True)
    finally:
        os.close(folder)


def _made() -> str:
    """Date and, in a git checkout, commit; `+` where tracked files differ from it."""
    words = [str(datetime.datetime.now(datetime.timezone.utc).date())]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        describe = ["git", "-C", str(ROOT), "describe", "--always", "--exclude=*", "--dirty=+"]
        words.append(subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip())
    return " ".join(words)


def main(argv=None) -> int:
    """Trains and writes the page; returns the exit status."""
    from paddle_dnl.gpu.coverage import FAMILIES
    from paddle_dnl.gpu.limits import LARGEST_FLOAT16
    from paddle_dnl.gpu.simulation import small_config, train_in

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="data/mini_cityscapes", help="as made by `paddle-dnl data mini-cityscapes`")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--page", type=Path, default=ROOT / "docs/half_precision.md", help="to add the rows to")
    args = parser.parse_args(argv)
    settings, made, passed = settings_line(args.steps), _made(), True
    rows_of(args.page, settings)  # refuses a page of other settings before hours of training
    for family in args.families:
        curves = {p: train_in(small_config(family, args.data, args.steps), p) for p in ("fp32", "fp16", "bf16")}
        end = curves["fp32"].end
        distances = {p: curves[p].end / end - 1 for p in ("fp16", "bf16")}
        passed &= all(c.is_finite for c in curves.values()) and max(map(abs, distances.values())) <= LIMIT
        layer, largest = max(curves["fp16"].largest.items(), key=lambda item: item[1])
        row = (
            f"| {family} | {end:.4f} | {distances['fp16']:+.2%} | {curves['fp16'].skipped} | {distances['bf16']:+.2%} | "
            f"{LARGEST_FLOAT16 / largest:.0f} | `{layer}` | {made} |"
        )
        print(row, flush=True)
        add_row(args.page, settings, family, row)
    return 0 if passed else 1


if __name__ == "__main__":
    run("half_precision")
