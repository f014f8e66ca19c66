# SPDX-License-Identifier: Apache-2.0
"""Command line of `paddle-dnl check-gpu`: tests all GPU features on this machine."""

import argparse
from pathlib import Path

from paddle_dnl.cli._arguments import require_at_least
from paddle_dnl.errors import UsageError, nearest


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of `paddle-dnl check-gpu`."""
    parser = argparse.ArgumentParser(
        description="Trains in every precision on one GPU and on all, resumes, exports, and compares results and speed with "
        "plain PaddleSeg. Writes a table, results.json and a line that begins with PASS or FAIL."
    )
    add = parser.add_argument
    add(
        "--device",
        choices=("gpu", "cpu"),
        help="default: gpu if available, else cpu, which only tests this program itself",
    )
    add("--steps", type=int, default=50, help="steps of each training")
    add("--crop", type=int, default=256, help="side of the images in pixels")
    add("--save_dir", default="output/check_gpu", help="output folder of results and logs; must be new or empty")
    add("--only", nargs="+", metavar="CHECK", help="run only these checks and those that they are compared with")
    add("--time_limit", type=float, default=1800.0, metavar="SECONDS", help="time limit for each program that is run")
    return parser


def main(argv=None) -> int:
    """Runs the checks; returns the exit status, 1 when one failed."""
    args = make_parser().parse_args(argv)
    require_at_least(args, 4, "steps")
    if args.crop < 64 or args.crop % 32:
        raise UsageError(f"--crop must be a multiple of 32 from 64, got {args.crop}")
    folder = Path(args.save_dir).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--save_dir {args.save_dir}: is not an empty folder; give a new one")
    from paddle_dnl.cli._arguments import select_device
    from paddle_dnl.gpu.check import Bench, Checks, table, verdict, write_report

    bench = Bench(folder, select_device(args.device), args.steps, args.crop, args.time_limit)
    checks = Checks(bench)
    for name in args.only or ():
        if name not in checks.all:
            raise UsageError(f"--only {name!r} is none of {', '.join(checks.all)}.{nearest(name, checks.all)}")
    bench.prepare()
    outcomes = checks.run(args.only)
    write_report(folder, outcomes)
    print(f"\n{table(outcomes)}", flush=True)
    return 1 if verdict(outcomes).startswith("FAIL") else 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.check_gpu")
