# SPDX-License-Identifier: Apache-2.0
"""Exported DNLNet-R50 in float32 and bfloat16 beside PaddleSeg's plain export in Paddle Inference and mmsegmentation in PyTorch.

    python benchmarks/backends.py --torch_python .venv-parity/bin/python
    python benchmarks/backends.py --sides paddleseg ours_f32 ours_bf16 --size 512x256 --peer ../PaddleSeg

Each peer has its own variant of DNLNet, and ours of the same variant and weights stands beside it: PaddleSeg's by loading them
into both, OpenMMLab's through tools/convert_weights.py, which compares the logits. Sides run in turn, each round of a side in a
process of its own; every time is from the network's input to classes. The interpreter needs paddle2onnx, onnxruntime and
openvino (`make bench`); mmsegmentation has an environment of its own (`make parity` makes it, without Paddle).
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from paddle_dnl.files.atomic import write_text  # noqa: E402
from paddle_dnl.profile.measuring import load_average, machine, peak_bytes, seconds_of_runs  # noqa: E402
from paddle_dnl.startup import configure_process  # noqa: E402

import exported  # noqa: E402
from run import checkout, output_of, version_of  # noqa: E402

# Side -> (precision or None of a peer, the peer beside whose net it is).
SIDES = {
    "paddleseg": (None, "paddleseg"),
    "ours_f32": ("fp32", "paddleseg"),
    "ours_bf16": ("bf16", "paddleseg"),
    "mmseg": (None, "mmseg"),
    "ours_mmseg_f32": ("fp32", "mmseg"),
    "ours_mmseg_bf16": ("bf16", "mmseg"),
}
# Ours over the peer's time, at most.
TARGETS = {"ours_f32": 0.40, "ours_bf16": 0.20, "ours_mmseg_f32": 0.75, "ours_mmseg_bf16": 0.40}
CONFIG = ROOT / "configs/dnlnet/mmseg/dnl_r50-d8_512x1024_40k_cityscapes.yml"
GIVEN = ["--config", CONFIG, "--opts", "model.backbone.pretrained=null"]


def mmseg_weights(work: Path, torch_python: Path) -> tuple[Path, Path]:
    """The weights of `torch_peer.py`, as mmsegmentation stores them and converted; made once per state of the package."""
    weights, check = work / "dnl.pth", work / "check.npz"
    if not check.exists():
        work.mkdir(parents=True, exist_ok=True)
        output_of([torch_python, ROOT / "benchmarks/torch_peer.py", "prepare", weights, check])
    converted = work / f"dnl_{exported.state('ours')}.safetensors"
    if not converted.exists():
        output_of([sys.executable, ROOT / "tools/convert_weights.py", "--source", "mmseg", "--input", weights, *GIVEN,
                   "--output", converted, "--verify", check])  # fmt: skip
    return weights, converted


def mmseg_folder(work: Path, torch_python: Path, shape: tuple[int, ...]) -> Path:
    """OpenMMLab's variant with the weights of `torch_peer.py`, converted and exported; made once per state of the package."""
    folder = work / f"mmseg_{exported.state('ours')}_{shape[2]}x{shape[3]}"
    _, converted = mmseg_weights(work, torch_python)
    if not (folder / "deploy.yaml").exists():
        output_of([sys.executable, ROOT / "export.py", *GIVEN, "--model_path", converted, "--format", "onnx",
                   "--save_dir", folder, "--input_shape", *shape])  # fmt: skip
    return folder


def measure(side: str, folder: str | None, shape: tuple[int, ...], repeats: int) -> dict:
    """One side in this process: seconds of each run, peak memory, and what ran."""
    configure_process()
    import numpy as np

    precision, _ = SIDES[side]
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    if side == "paddleseg":
        step, backend = exported.step("peer", shape), "Paddle Inference"
    else:
        from paddle_dnl import Predictor

        chosen = {"backend": "auto"} if precision == "fp32" else {"backend": "openvino", "precision": precision}
        predictor = Predictor(folder, **chosen)
        step, backend = (lambda: predictor.run(x)), f"{predictor.backend} {precision}"
    seconds = seconds_of_runs(step, warmup=1, repeats=repeats)
    return {"seconds": seconds, "peak": peak_bytes(), "backend": backend}


def run_side(side: str, args: argparse.Namespace, folder: Path | None, shape: tuple[int, ...]) -> dict:
    """One round of a side in a process of its own, with the load of the machine before it."""
    environment = dict(os.environ, OMP_NUM_THREADS=str(args.threads))
    load = load_average()
    if side == "mmseg":
        given = [args.work / "dnl.pth", *shape[2:], args.repeats, args.threads]
        command = [args.torch_python, ROOT / "benchmarks/torch_peer.py", "time", *given]
    else:
        size = f"{shape[3]}x{shape[2]}"
        command = [sys.executable, __file__, "--measure", side, "--size", size, "--repeats", args.repeats]
        command += ["--folder", folder] if folder else []
    answer = output_of(command, environment, args.peer if side == "paddleseg" else None)
    return json.loads(answer.strip().splitlines()[-1]) | {"load": load}


def table(rows: dict[str, dict]) -> str:
    """Markdown."""
    lines = [
        "| side | what runs | seconds | fastest | ratio to | ratio | target | peak MB | load |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    for side, row in rows.items():
        _, peer = SIDES[side]
        ratio = "" if side == peer or peer not in rows else f"{row['seconds'] / rows[peer]['seconds']:.2f}"
        target = f"<= {TARGETS[side]:.2f}" if side in TARGETS else ""
        lines.append(
            f"| {side} | {row['backend']} | {row['seconds']:.3f} | {row['fastest']:.3f} | {peer if ratio else ''} | {ratio} "
            f"| {target} | {row['peak'] / 1e6:.0f} | {row['load']:.1f} |"
        )
    return "\n".join(lines)


def in_rounds(sides: Sequence[str], rounds: int, run: Callable[[str], dict]) -> Iterator[dict[str, list[dict]]]:
    """Runs all sides in turn; gives what `run` gave for each side so far, after each round."""
    found: dict[str, list[dict]] = {side: [] for side in sides}
    for number in range(rounds):
        # The side that begins changes, so that a machine that slows down favours none.
        for side in sides if number % 2 == 0 else reversed(sides):
            found[side].append(run(side))
            print(f"{side}: {', '.join(f'{s:.3f}' for s in found[side][-1]['seconds'])} s", file=sys.stderr, flush=True)
        yield found


def summary(runs: list[dict]) -> dict:
    """The row of a side's runs: medians, the fastest of all and the highest load."""
    seconds = [s for one in runs for s in one["seconds"]]
    row = {"seconds": median(seconds), "fastest": min(seconds), "peak": median(one["peak"] for one in runs)}
    return row | {"backend": runs[-1]["backend"], "load": max(one["load"] or 0 for one in runs)}


def size(text: str) -> tuple[int, int, int, int]:
    """`1024x512` to a shape `[1, 3, H, W]`."""
    width, height = map(int, text.split("x"))
    return (1, 3, height, width)


def main() -> None:
    """Makes what is missing, measures in rounds, prints the table and writes output/benchmarks/backends.{md,json}."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--size", type=size, default=(1, 3, 512, 1024), metavar="WxH", help="default 1024x512")
    parser.add_argument("--rounds", type=int, default=2, help="processes per side")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs per process")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--torch_python", type=Path, help="interpreter with PyTorch and mmsegmentation, for the sides of mmseg"
    )
    parser.add_argument(
        "--peer", type=checkout, metavar="PATH", help="a checkout of PaddleSeg; default: the installed one"
    )
    parser.add_argument(
        "--work", type=Path, default=exported.TEMPORARY / "paddle_dnl_benchmark_mmseg", help="kept between runs"
    )
    parser.add_argument("--save_dir", type=Path, default=ROOT / "output" / "benchmarks")
    parser.add_argument("--measure", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.folder, args.size, args.repeats)))
        return
    needs_torch = any(SIDES[side][1] == "mmseg" for side in args.sides)
    if needs_torch and args.torch_python is None:
        parser.error("the sides of mmseg need --torch_python, such as .venv-parity/bin/python; make parity makes it")
    folders = {"paddleseg": exported.folder_of("ours", args.size)} if {"ours_f32", "ours_bf16"} & {*args.sides} else {}
    if needs_torch:
        folders["mmseg"] = mmseg_folder(args.work, args.torch_python, args.size)
    for side in args.sides:
        precision, peer = SIDES[side]
        if precision == "fp32":  # `auto` measures all backends at its first start and remembers the result
            run_side(side, args, folders[peer], args.size)

    def run(side: str) -> dict:
        precision, peer = SIDES[side]
        return run_side(side, args, folders[peer] if precision else None, args.size)

    *_, found = in_rounds(args.sides, args.rounds, run)
    rows = {side: summary(runs) for side, runs in found.items()}
    about = f"{machine()}, {args.threads} threads, {args.size[3]}x{args.size[2]}, {version_of(args.peer)}"
    text = f"{about}, medians of {args.rounds} x {args.repeats}\n\n{table(rows)}\n"
    write_text(args.save_dir / "backends.md", text)
    write_text(args.save_dir / "backends.json", json.dumps({"about": about, "rows": rows}, indent=1))
    print(text)


if __name__ == "__main__":
    main()
