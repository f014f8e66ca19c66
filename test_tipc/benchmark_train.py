# SPDX-License-Identifier: Apache-2.0
"""Training speed: the training command of a TIPC file for every entry of its train_benchmark section.

Called by benchmark_train.sh. `epoch` of that section counts passes over the training pictures. Speed is the
median `ips` of the training log without its first quarter, which holds the warm-up.
"""

import json
import re
import shlex
import statistics
import sys
from pathlib import Path

from run_tipc import Runner
from tipc_config import TipcConfig, TipcError
from tipc_process import run_script

IPS = re.compile(r"\[TRAIN\].* ips: ([0-9.]+)")


def read_ips(log: str) -> float:
    """Median pictures per second of a training log without its first quarter.

    Raises:
        TipcError: the log holds no `[TRAIN] ... ips:` line.
    """
    values = [float(value) for value in IPS.findall(log)]
    if not values:
        raise TipcError("the training log holds no line with ips")
    return statistics.median(values[len(values) // 4 :])


def training_pictures(config: TipcConfig) -> int:
    """How many pictures train.txt of the data of line 12 names.

    Raises:
        TipcError: there is no train.txt above that folder.
    """
    for parent in Path(config.line(12).value).parents:
        if (parent / "train.txt").is_file():
            return len((parent / "train.txt").read_text(encoding="utf-8").splitlines())
    raise TipcError(f"{config.line(12).value}: no train.txt above it; run test_tipc/prepare.sh first")


def number(config: TipcConfig, key: str) -> list[int]:
    """The whole numbers of a line of the train_benchmark section."""
    # batch_size is also the key of a line before the section; `find` takes the last.
    value = config.find(key)
    try:
        numbers = [int(part) for part in value.split("|")]
    except ValueError as error:
        raise TipcError(f"{config.path}: {key}:{value} is not a list of whole numbers") from error
    if min(numbers) < 1:
        raise TipcError(f"{config.path}: {key}:{value} must be at least 1")
    return numbers


def benchmark(config: TipcConfig, out: Path) -> int:
    """Runs all combinations, prints one line for each and writes benchmark.json; 0 when all succeeded."""
    runner = Runner(config, "benchmark_train", out)
    train = config.line(16).command
    if train is None:
        raise TipcError(f"{config.path}: line 16 has no training command to measure")
    gpu = runner.gpu_list()[0]
    device = config.line(5).flag("cpu" if gpu == "-1" else config.line(5).choices[0])
    # Evaluation is no part of training speed.
    arguments = [part for part in shlex.split(train) if part != "--do_eval"]
    measured = []
    for precision in (config.find("fp_items") or "fp32").split("|"):
        for batch in number(config, "batch_size"):
            iters = max(4, number(config, "epoch")[0] * training_pictures(config) // batch)
            name = f"{config.model_name}_bs{batch}_{precision}_gpus_{gpu}"
            command = [config.python, *runner.launch(gpu), *arguments, *device, *config.line(8).flag(str(out / name))]
            command += config.line(7).flag(str(iters)) + config.line(9).flag(str(batch))
            command += config.line(6).flag(precision)
            log = out / f"{name}.log"
            if runner.step(command, log, gpu):
                ips = read_ips(log.read_text(errors="replace"))
                print(f"{name}: ips {ips:.3f} samples/sec")
                measured.append({"model": config.model_name, "batch_size": batch, "precision": precision, "gpu": gpu,
                                 "iters": iters, "ips": ips})  # fmt: skip
    (out / "benchmark.json").write_text(json.dumps(measured, indent=2) + "\n")
    return 1 if runner.failed else 0


def main(argv: list[str]) -> int:
    """`benchmark_train.py CONFIG [benchmark_train]`"""
    if not argv or argv[1:2] not in ([], ["benchmark_train"]):
        print("usage: benchmark_train.sh CONFIG benchmark_train", file=sys.stderr)
        return 2
    try:
        config = TipcConfig(argv[0])
        return benchmark(config, Path("test_tipc/output") / config.model_name / "benchmark_train")
    except TipcError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    run_script(main)
