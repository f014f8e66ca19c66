# SPDX-License-Identifier: Apache-2.0
"""Compares with the live peer: each side in its own process, in turn, several rounds; prints ratios.

Both sides get the same threads and matrix kernels; the peer keeps its C library's way of allocating, unless `--same_allocator`
gives it what programs of paddle_dnl set. The peer is also timed once as it starts by itself: one thread, and what MKL chooses.

python benchmarks/run.py                     all cases
python benchmarks/run.py block_64x128 train_512x1024 --rounds 3
python benchmarks/run.py evaluate --peer ../PaddleSeg       a checkout in place of the installed paddleseg
"""

import argparse
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from paddle_dnl.files.atomic import new_file, write_text  # noqa: E402
from paddle_dnl.startup import allocator, cpu_kernels  # noqa: E402

# glibc's own default: a user's word that changes nothing, but keeps paddle_dnl from choosing.
UNCHANGED = "glibc.malloc.tcache_count=7"


def output_of(command: list, environment: dict | None = None, peer: Path | None = None) -> str:
    """What a command prints; raises with what it said when it fails.

    Args:
        command: the words.
        environment: in place of this process's.
        peer: a checkout of PaddleSeg that the command imports in place of the installed one.
    """
    words = list(map(str, command))
    environment = dict(os.environ if environment is None else environment)
    if peer is not None:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(peer), environment.get("PYTHONPATH"))))
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed with {done.returncode}:\n{done.stderr[-2000:]}{done.stdout[-500:]}")
    return done.stdout


def run_side(case: str, side: str, repeats: int, threads: int | None, our_allocator: bool, peer: Path | None) -> dict:
    """One process; raises with its output when it fails.

    Without `threads` Paddle starts as it does by itself. `peer` is a checkout of PaddleSeg in place of the installed one.
    """
    environment = dict(os.environ)
    if not our_allocator:
        environment[allocator.TUNABLES] = UNCHANGED
    if threads is None:
        environment.pop("OMP_NUM_THREADS", None)
        environment[cpu_kernels.VARIABLE] = ""
    else:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = [sys.executable, ROOT / "benchmarks/worker.py", case, side, repeats]
    return json.loads(output_of(command, environment, peer).strip().splitlines()[-1])


def compare(name: str, case, rounds: int, repeats: int, threads: int, same_allocator: bool, peer: Path | None) -> dict:
    """Medians over all rounds and the ratios ours / peer."""
    found: dict[str, list[dict]] = {"ours": [], "peer": []}
    for round_number in range(rounds):
        # The side that begins changes, so that a machine that slows down favours neither.
        for side in ("ours", "peer") if round_number % 2 == 0 else ("peer", "ours"):
            our_allocator = side == "ours" or same_allocator
            found[side].append(run_side(name, side, repeats, threads, our_allocator, peer))
    row: dict = {
        "case": name,
        "title": case.title,
        "time_target": case.time_target,
        "memory_target": case.memory_target,
    }
    for side, runs in found.items():
        row[f"{side}_seconds"] = median(s for run in runs for s in run["seconds"])
        row[f"{side}_best"] = min(s for run in runs for s in run["seconds"])
        memory = [run["peak"] - (run["base"] if case.above_base else 0) for run in runs]
        row[f"{side}_megabytes"] = median(memory) / 1e6
    row["time_ratio"] = row["ours_seconds"] / row["peer_seconds"]
    # On a shared machine that lends a core to others now and then, the fastest run says more than the middle one.
    row["best_ratio"] = row["ours_best"] / row["peer_best"]
    row["memory_ratio"] = row["ours_megabytes"] / row["peer_megabytes"]
    row["peer_default_seconds"] = None
    if case.peer_default:
        row["peer_default_seconds"] = run_side(name, "peer", 1, None, False, peer)["seconds"][0]
    return row


def checkout(text: str) -> Path:
    """The folder of a PaddleSeg checkout, for --peer."""
    path = Path(text).resolve()
    if not (path / "paddleseg" / "__init__.py").is_file():
        raise argparse.ArgumentTypeError(f"{text}: no checkout of PaddleSeg (it has no paddleseg/__init__.py)")
    return path


def version_of(peer: Path | None) -> str:
    """What the other side is called."""
    if peer is None:
        return f"paddleseg {metadata.version('paddleseg')}"
    told = subprocess.run(["git", "-C", str(peer), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return f"PaddleSeg {peer.name} {told.stdout.strip()}".strip()


def table(rows: list[dict]) -> str:
    """Markdown."""
    lines = [
        "| case | ours s | peer s | ratio | of the fastest | target | peer as it starts, s "
        "| ours MB | peer MB | ratio | target |",
        "|---|" + "---:|" * 10,
    ]
    for row in rows:
        targets = ["" if row[k] is None else f"<= {row[k]:g}" for k in ("time_target", "memory_target")]
        default = "" if row["peer_default_seconds"] is None else f"{row['peer_default_seconds']:.3f}"
        lines.append(
            f"| {row['title']} | {row['ours_seconds']:.3f} | {row['peer_seconds']:.3f} | {row['time_ratio']:.2f} "
            f"| {row['best_ratio']:.2f} | {targets[0]} | {default} "
            f"| {row['ours_megabytes']:.0f} | {row['peer_megabytes']:.0f} | {row['memory_ratio']:.2f} | {targets[1]} |"
        )
    return "\n".join(lines)


def draw(rows: list[dict], path: Path, peer: str) -> None:
    """Bars of both ratios; 1 is the peer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 0.5 * len(rows) + 1.2))
    places = range(len(rows))
    axes.barh([p + 0.2 for p in places], [row["time_ratio"] for row in rows], 0.38, label="time", color="#33658a")
    axes.barh([p - 0.2 for p in places], [row["memory_ratio"] for row in rows], 0.38, label="memory", color="#f6ae2d")
    axes.axvline(1, color="#666666", linewidth=1)
    axes.set_yticks(list(places), [row["title"] for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"ours / {peer} (less is better)")
    axes.legend(loc="lower right")
    figure.tight_layout()
    with new_file(path) as temporary:
        figure.savefig(temporary, dpi=110)


def main() -> None:
    """Runs, prints, and writes output/benchmarks/{results.json,results.md,ratios.png}."""
    import paddle_dnl  # noqa: F401
    from paddle_dnl.profile.measuring import machine

    from cases import CASES

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", help=f"default all: {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=2, help="processes per side")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps per process")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="OMP_NUM_THREADS of both sides")
    parser.add_argument("--same_allocator", action="store_true", help="the peer, too, keeps memory as paddle_dnl does")
    parser.add_argument("--save_dir", type=Path, default=ROOT / "output" / "benchmarks")
    parser.add_argument(
        "--peer", type=checkout, metavar="PATH", help="a checkout of PaddleSeg; default: the installed one"
    )
    args = parser.parse_args()
    unknown = [name for name in args.cases if name not in CASES]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    rows, peer = [], version_of(args.peer)
    for name in args.cases or CASES:
        rows.append(compare(name, CASES[name], args.rounds, args.repeats, args.threads, args.same_allocator, args.peer))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
        # After every case: what took half an hour is not lost when a later one fails.
        text = f"{machine()}, {args.threads} threads, peer {peer}, medians of {args.rounds} x {args.repeats}\n\n{table(rows)}\n"
        write_text(args.save_dir / "results.md", text)
        content = {"machine": machine(), "peer": peer, "rows": rows}
        write_text(args.save_dir / "results.json", json.dumps(content, indent=1))
        draw(rows, args.save_dir / "ratios.png", peer)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
