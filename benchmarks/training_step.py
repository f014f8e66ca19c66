# SPDX-License-Identifier: Apache-2.0
"""A training step of DNLNet-R50 beside mmsegmentation's in PyTorch: OpenMMLab's variant, configuration and weights on both sides.

    python benchmarks/training_step.py --torch_python .venv-parity/bin/python

One image, forward and backward through both heads and their losses, and an update by SGD with momentum and weight decay. The
sides run in turn, each round in a process of its own. Before the timed steps the losses of `--warmup` steps without dropout
are compared: equal losses of two steps mean equal gradients and updates.
"""

import argparse
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from paddle_dnl.files.atomic import write_text  # noqa: E402
from paddle_dnl.profile.measuring import load_average, machine, peak_bytes, seconds_of_runs  # noqa: E402
from paddle_dnl.startup import configure_process  # noqa: E402

import exported  # noqa: E402
from backends import CONFIG, in_rounds, mmseg_weights, size, summary  # noqa: E402
from run import output_of  # noqa: E402

SIDES = ("mmseg", "ours")
# Ours over PyTorch's, at most.
TIME_TARGET, MEMORY_TARGET = 0.95, 1.0
# Relative difference of the losses: the learning rate makes rounding grow from step to step.
LOSS_TOLERANCE = 1e-3


def measure(weights: str, height: int, width: int, warmup: int, repeats: int) -> dict:
    """Ours in this process, as the trainer computes a step: seconds, losses of the steps before, peak memory."""
    configure_process()
    from paddle_dnl.config import Config
    from paddle_dnl.startup import allocator
    from paddle_dnl.training.parts import ConfiguredParts
    from paddle_dnl.weights.loading import load_weights

    import paddle
    from training_input import training_input, without_dropout

    config = Config(str(CONFIG), opts=["model.backbone.pretrained=null"])
    model, losses, schedule, optimizer = ConfiguredParts(config).network(None)
    load_weights(model, weights)
    model.train()
    image, label = map(paddle.to_tensor, training_input(height, width))

    def step():
        loss = sum(value for _, value in losses(model(image), label))
        allocator.give_back()
        loss.backward()
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)
        schedule.step()
        return float(loss)

    dropouts = [layer for layer in model.sublayers() if isinstance(layer, paddle.nn.Dropout2D)]
    with without_dropout(dropouts):
        before = [step() for _ in range(warmup)]
    seconds = seconds_of_runs(step, warmup=0, repeats=repeats)
    return {"seconds": seconds, "losses": before, "peak": peak_bytes(), "backend": f"Paddle {paddle.__version__}"}


def run_side(side: str, args: argparse.Namespace, weights: Path) -> dict:
    """One round of a side in a process of its own, with the load of the machine before it."""
    load, environment = load_average(), dict(os.environ, OMP_NUM_THREADS=str(args.threads))
    if side == "mmseg":
        command = [args.torch_python, ROOT / "benchmarks/torch_peer.py", "train", weights]
        command += [*args.size[2:], args.warmup, args.repeats, args.threads]
    else:
        command = [sys.executable, __file__, "--measure", weights, "--size", f"{args.size[3]}x{args.size[2]}"]
        command += ["--warmup", args.warmup, "--repeats", args.repeats]
    return json.loads(output_of(command, environment).strip().splitlines()[-1]) | {"load": load}


def require_same_losses(found: dict[str, dict]) -> None:
    """Raises SystemExit where the two sides did not compute the same."""
    for number, (theirs, ours) in enumerate(
        zip(found["mmseg"]["losses"], found["ours"]["losses"], strict=True), start=1
    ):
        if not abs(ours - theirs) <= LOSS_TOLERANCE * abs(theirs):
            raise SystemExit(f"the loss of step {number} is {ours:.6f}, mmsegmentation's {theirs:.6f}")


def table(rows: dict[str, dict]) -> str:
    """Markdown."""
    peer = rows["mmseg"]
    lines = ["| side | what runs | seconds | fastest | ratio | target | peak MB | ratio | target | load |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for side, row in rows.items():
        ratios = [""] * 4
        if side != "mmseg":
            ratios = [f"{row['seconds'] / peer['seconds']:.2f}", f"<= {TIME_TARGET:.2f}"]
            ratios += [f"{row['peak'] / peer['peak']:.2f}", f"<= {MEMORY_TARGET:.2f}"]
        lines.append(
            f"| {side} | {row['backend']} | {row['seconds']:.3f} | {row['fastest']:.3f} | {ratios[0]} | {ratios[1]} "
            f"| {row['peak'] / 1e6:.0f} | {ratios[2]} | {ratios[3]} | {row['load']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures in rounds, prints the table and writes output/benchmarks/training_step.{md,json}."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--torch_python", type=Path, help="interpreter with PyTorch and mmsegmentation; make parity makes it"
    )
    parser.add_argument("--size", type=size, default=(1, 3, 512, 1024), metavar="WxH", help="default 1024x512")
    parser.add_argument("--rounds", type=int, default=2, help="processes per side")
    parser.add_argument("--warmup", type=int, default=1, help="steps before, whose losses are compared")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps per process")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--work", type=Path, default=exported.TEMPORARY / "paddle_dnl_benchmark_mmseg", help="kept between runs"
    )
    parser.add_argument("--save_dir", type=Path, default=ROOT / "output" / "benchmarks")
    parser.add_argument("--measure", metavar="WEIGHTS", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, *args.size[2:], args.warmup, args.repeats)))
        return
    if args.torch_python is None:
        parser.error("--torch_python is missing, such as .venv-parity/bin/python; make parity makes it")
    weights = dict(zip(SIDES, mmseg_weights(args.work, args.torch_python), strict=True))
    for found in in_rounds(SIDES, args.rounds, lambda side: run_side(side, args, weights[side])):
        require_same_losses({side: runs[-1] for side, runs in found.items()})
    rows = {side: summary(runs) | {"losses": runs[-1]["losses"]} for side, runs in found.items()}
    about = (
        f"{machine()}, {args.threads} threads, {args.size[3]}x{args.size[2]}, medians of {args.rounds} x {args.repeats}"
    )
    write_text(args.save_dir / "training_step.md", text := f"{about}\n\n{table(rows)}\n")
    write_text(args.save_dir / "training_step.json", json.dumps({"about": about, "rows": rows}, indent=1))
    print(text)


if __name__ == "__main__":
    main()
