# SPDX-License-Identifier: Apache-2.0
"""The whole way of a model in one go, on generated street scenes and a CPU: `make quickstart`.

Each step is a command that can be typed by itself; it is printed before it runs. The first one that fails ends the tour
with its exit status.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from paddle_dnl.cli._run import run as run_program  # noqa: E402
from paddle_dnl.errors import PaddleDnlError  # noqa: E402
from paddle_dnl.files.atomic import write_text  # noqa: E402
from paddle_dnl.startup.child_processes import running_program  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
CONFIG = "configs/quickstart/dnlnet_resnet18_mini_cityscapes.yml"
DATA = "data/mini_cityscapes"
SIZE = "512x256"


def commands(out: str) -> list[tuple[str, str]]:
    """Step name and command line, in order; `python` stands for the running interpreter."""
    width, height = SIZE.split("x")
    return [
        (
            "generate street scenes",
            f"python -m paddle_dnl.cli.data.mini_cityscapes --out {DATA} --train 160 --val 24 --size {SIZE} --seed 0",
        ),
        (
            "convert polygons to label pictures",
            f"python tools/data/convert_cityscapes.py --cityscapes_path {DATA} --num_workers 2",
        ),
        (
            "write file lists",
            f'python tools/data/create_dataset_list.py {DATA} --type cityscapes --separator ","',
        ),
        (
            "train",
            f"python train.py --config {CONFIG} --do_eval --use_vdl --save_interval 200 --log_iters 20 --seed 0 "
            f"--num_workers 1 --save_dir {out}",
        ),
        ("evaluate", f"python val.py --config {CONFIG} --model_path {out}/best_model/model.pdparams"),
        (
            "export",
            f"python export.py --config {CONFIG} --model_path {out}/best_model/model.pdparams "
            f"--input_shape 1 3 {height} {width} --save_dir {out}/inference_model",
        ),
        (
            "infer with Paddle Inference",
            f"python deploy/python/infer.py --config {out}/inference_model/deploy.yaml "
            f"--image_path {DATA}/leftImg8bit/val --save_dir {out}/predictions --device cpu",
        ),
        (
            "report",
            f"python tools/report.py --config {CONFIG} --run_dir {out} --prediction_dir {out}/predictions "
            f"--save_dir {out} --timings {out}/timings.json",
        ),
    ]


class StepFailed(PaddleDnlError):
    """A step, which has said why, ended with a status other than 0; the program ends with the same."""

    def __init__(self, command: str, status: int):
        super().__init__(f"this step failed with exit status {status}: {command}")
        self.exit_status = status if status > 0 else 128 - status


def run(command: str) -> str:
    """Runs one step with its output shown; returns that output.

    Raises:
        StepFailed: it failed.
    """
    print(f"\n$ {command}", flush=True)
    words = shlex.split(command)
    lines = []
    with running_program([sys.executable, *words[1:]], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
        if process.wait():
            raise StepFailed(command, process.returncode)
    return "".join(lines)


def main(argv=None) -> int:
    """Runs all steps and prints where the pictures are and the mIoU; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--save_dir", default="output/quickstart")
    out = parser.parse_args(argv).save_dir
    timings, miou = {}, None
    for name, command in commands(out):
        began = time.perf_counter()
        write_text(ROOT / out / "timings.json", json.dumps(timings, indent=1))
        text = run(command)
        timings[name] = time.perf_counter() - began
        if name == "evaluate":
            miou = re.findall(r"\[EVAL\] #Images: \d+ mIoU: ([\d.]+)", text)[-1]
    print(f"\nPictures and report: {out}/report.html")
    print(f"mIoU: {miou}")
    return 0


if __name__ == "__main__":
    run_program("quickstart")
