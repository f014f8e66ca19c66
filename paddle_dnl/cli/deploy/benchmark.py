# SPDX-License-Identifier: Apache-2.0
"""Command line of tools/benchmark.py: measures speed and memory of an exported model in each backend."""

import argparse
import json
from pathlib import Path

from paddle_dnl import user_code
from paddle_dnl.cli._arguments import add_export_imports, add_renamed, require_at_least, width_and_height
from paddle_dnl.errors import UsageError

_BACKENDS = ("paddle", "onednn", "onnxruntime", "int8", "openvino", "openvino_bf16", "openvino_int8")


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of benchmark.py."""
    parser = argparse.ArgumentParser(
        description="Measures latency, throughput and peak memory of an exported model, each setting in its own process."
    )
    add = parser.add_argument
    add("--config", required=True, help="deploy.yaml of the exported folder, or the folder")
    add_export_imports(parser)
    add_renamed(
        parser,
        "--backends",
        "--engines",
        nargs="+",
        choices=_BACKENDS,
        help="backends; default: all that the export verified",
    )
    add("--threads", nargs="+", type=int, help="numbers of threads; default: the number of cores")
    add("--batch_sizes", nargs="+", type=int, help="batch sizes, for models with a free batch size; default: 1")
    add(
        "--sizes",
        nargs="+",
        type=width_and_height,
        metavar="WIDTHxHEIGHT",
        help="input sizes, for models with a free input size",
    )
    add("--warmup", type=int, default=3, help="number of untimed runs")
    add("--repeats", type=int, default=20, help="number of timed runs")
    add(
        "--save_dir",
        default="./output/backend_benchmark",
        help="output folder of results.md, results.json and results.png",
    )
    return parser


def parse_args(argv=None) -> argparse.Namespace:
    """Parses and checks the flags.

    Raises:
        UsageError: invalid values; names the flag.
    """
    args = make_parser().parse_args(argv)
    require_at_least(args, 1, "threads", "batch_sizes", "repeats")
    require_at_least(args, 0, "warmup")
    return args


def main(argv=None) -> int:
    """Measures, prints a table and writes the files; returns the exit status."""
    args = parse_args(argv)
    from dataclasses import asdict

    from paddle_dnl.deployment.benchmark import timings
    from paddle_dnl.deployment.benchmark.chart import draw
    from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
    from paddle_dnl.files.atomic import write_text
    from paddle_dnl.files.outputs import check_outputs
    from paddle_dnl.log import logger
    from paddle_dnl.profile.measuring import machine
    from paddle_dnl.startup.threads import available_cores

    user_code.import_for_export(args.custom_imports)
    files = read_deploy_config(args.config)
    folder = Path(args.save_dir)
    check_outputs([folder / f"results.{ending}" for ending in ("md", "json", "png")], [], root=folder)
    wanted = []
    for name in args.backends or _BACKENDS:
        why = timings.obstacle(name, files)
        if why and args.backends:
            raise UsageError(f"--backends {name}: {files.folder}: {why}")
        if why:
            logger.info(f"skipping {name}: {why}")
        else:
            wanted.append(name)
    rows, sizes = [], [(height, width) for width, height in args.sizes or ()]
    for shape in timings.shapes(files, args.batch_sizes, sizes):
        for threads in args.threads or [available_cores()]:
            for name in wanted:
                rows.append(timings.measure(files, name, threads, shape, args.warmup, args.repeats))
                logger.info(timings.table(rows[-1:]).splitlines()[-1].strip("| "))
    this_machine = machine()
    head = f"{files.folder}: {args.repeats} runs after {args.warmup}, random input; {this_machine}"
    write_text(folder / "results.md", f"{head}\n\n{timings.table(rows)}\n")
    content = {"folder": str(files.folder), "machine": this_machine, "rows": [asdict(row) for row in rows]}
    write_text(folder / "results.json", json.dumps(content, indent=1))
    draw(rows, folder / "results.png", this_machine)
    print(f"\n{head}\n\n{timings.table(rows)}\n\nresults.md, results.json, results.png: {folder}", flush=True)
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.deploy.benchmark")
