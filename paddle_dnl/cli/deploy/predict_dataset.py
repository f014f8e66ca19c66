# SPDX-License-Identifier: Apache-2.0
"""Command line of `paddle-dnl predict-dataset`: predicts millions of pictures with an exported model and Ray Data."""

import argparse
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from paddle_dnl.cli import _arguments
from paddle_dnl.config.choices import EXPORTED_PRECISIONS
from paddle_dnl.errors import revived
from paddle_dnl.files.outputs import require_folder

# Seconds between two progress lines.
_LINE_SECONDS = 10


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of predict-dataset; flags of infer.py have the same meaning."""
    parser = argparse.ArgumentParser(
        description="Predicts the pictures of a list, folder or Parquet file with many processes on one machine or a Ray cluster."
    )
    add = parser.add_argument
    add("--config", required=True, help="deploy.yaml of the exported folder, or the folder; readable on every machine")
    _arguments.add_export_imports(parser)
    add(
        "--image_path",
        required=True,
        help="folder, .txt list, glob pattern, Parquet file, or folder of Parquet files",
    )
    add(
        "--column",
        help="Parquet column of paths or encoded pictures; default: path; required for a folder of Parquet files",
    )
    add(
        "--name_column",
        help="Parquet column of the results' names; default: from the paths, or file name and row number",
    )
    add("--save_dir", required=True, help="output folder, writable on every machine")
    add(
        "--format",
        choices=("png", "parquet"),
        default="png",
        help="png: a label picture per picture; parquet: a Parquet file per chunk",
    )
    add("--chunk_size", type=int, default=256, help="pictures per task and Parquet file")
    add("--address", help="address of a Ray cluster, or auto for that of this machine; default: start a local cluster")
    add("--actors", type=int, help="maximum number of worker processes; default: as many as fit")
    add(
        "--cpus_per_actor",
        type=int,
        default=1,
        help="cores reserved per worker; also the number of threads of its backend",
    )
    add("--gpus_per_actor", type=float, help="GPUs reserved per worker; default: 1 with --device gpu, else 0")
    add("--batch_size", type=int, default=1, help="pictures per run")
    add("--device", choices=("cpu", "gpu"), default="cpu", help="device of the backends")
    add("--backend", choices=_arguments.BACKENDS, default="paddle", help="see infer.py")
    add("--precision", choices=EXPORTED_PRECISIONS, default="fp32", help="see infer.py")
    _arguments.add_picture_sizes(parser)
    add("--skip_bad_samples", action="store_true", help="skip pictures that cannot be read, and log them")
    return parser


def parse_args(argv=None) -> argparse.Namespace:
    """Parses and checks the flags.

    Raises:
        UsageError: invalid values; names the flag.
    """
    args = make_parser().parse_args(argv)
    _arguments.require_at_least(args, 1, "chunk_size", "actors", "cpus_per_actor", "batch_size", "max_pixels")
    _arguments.require_at_least(args, 0, "gpus_per_actor")
    if args.gpus_per_actor is None:
        args.gpus_per_actor = 1 if args.device == "gpu" else 0
    require_folder(args.save_dir)
    return args


def _settings(args: argparse.Namespace, files):
    """Returns the settings of the workers; resolves `auto` here, so that all workers use the same backend."""
    from paddle_dnl.deployment.bulk.worker import WorkerSettings
    from paddle_dnl.deployment.runtime.options import BackendOptions
    from paddle_dnl.deployment.runtime.selection import resolve_backend

    asked = BackendOptions(device=args.device, precision=args.precision, cpu_threads=args.cpus_per_actor)
    backend, options = resolve_backend(args.backend, files, asked)
    names = ("wrong_size", "tile", "tile_overlap", "max_pixels", "value_range")
    predictor = {name: getattr(args, name) for name in names} | {"tile_batch": args.batch_size}
    return WorkerSettings(
        config=str(Path(args.config).absolute()),
        save_dir=str(Path(args.save_dir).absolute()),
        format=args.format,
        skip_bad=args.skip_bad_samples,
        batch_size=args.batch_size,
        # Workers have another working directory.
        custom_imports=tuple(str(Path(m).absolute()) if m.endswith(".py") else m for m in args.custom_imports),
        predictor=predictor | {"backend": backend} | asdict(options),
    )


def _report(reports, plan) -> tuple[dict[str, int], int]:
    """Logs messages and progress of the workers.

    Returns:
        Sums of `done`, `there` and `unreadable`, and the number of nodes.

    Raises:
        PaddleDnlError: the error that ended a chunk.
    """
    from paddle_dnl.log import logger

    sums, nodes = dict.fromkeys(("done", "there", "unreadable"), 0), set()
    began = last = time.perf_counter()
    for number, report in enumerate(reports, 1):
        if report["error"]:
            raise revived(*report["error"])
        for message in report["messages"]:
            logger.warning(f"skipped: {message}")
        nodes.add(report["node"])
        for name in sums:
            sums[name] += report[name]
        now = time.perf_counter()
        if now - last > _LINE_SECONDS:
            last = now
            logger.info(
                f"chunk {number} of {len(plan.packed)}: {sum(sums.values())} of {plan.pictures} pictures, "
                f"{sums['done'] / (now - began):.2f} per second"
            )
    return sums, len(nodes)


def main(argv=None) -> int:
    """Predicts all pictures; returns the exit status."""
    args = parse_args(argv)
    from paddle_dnl import user_code
    from paddle_dnl.data.images.image_files import require_outside
    from paddle_dnl.data.images.image_format import ImageFormat
    from paddle_dnl.deployment.bulk import on_ray
    from paddle_dnl.deployment.bulk.chunks import Plan, Source
    from paddle_dnl.deployment.bulk.manifest import agree, model_digests
    from paddle_dnl.deployment.bulk.worker import ChunkWorker, forget_tries
    from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
    from paddle_dnl.deployment.runtime.own_components import require_modules
    from paddle_dnl.errors import DataError
    from paddle_dnl.log import logger

    on_ray.require_ray()
    require_outside(args.save_dir, args.image_path)
    user_code.import_for_export(args.custom_imports)
    files = read_deploy_config(args.config)
    require_modules(files)
    settings = _settings(args, files)
    endings = ImageFormat.of(files).with_range(args.value_range).endings
    source = Source(args.image_path, args.column, args.name_column, endings)
    plan = Plan.of(source.chunks(args.chunk_size))
    if not plan.pictures:
        raise DataError(f"{args.image_path}: no pictures")
    record = {"model": model_digests(files), "format": args.format, "precision": settings.predictor["precision"]}
    record |= {name: getattr(args, name) for name in ("wrong_size", "tile", "tile_overlap", "value_range")}
    if args.format == "parquet":  # a Parquet file belongs to fixed pictures; label pictures can be added to
        record["pictures"] = plan.digest
    agree(Path(args.save_dir), record)
    forget_tries(args.save_dir)
    logger.info(f"{plan.pictures} pictures in {len(plan.packed)} chunks; backend {settings.predictor['backend']}")
    cluster = on_ray.Cluster(args.address, args.actors, args.cpus_per_actor, args.gpus_per_actor)
    began = time.perf_counter()
    sums, nodes = _report(on_ray.run(plan, partial(ChunkWorker, settings), cluster), plan)
    if sums["unreadable"] == plan.pictures:
        raise DataError(f"none of the {plan.pictures} pictures can be read")
    where = f"{nodes} node{'s' if nodes != 1 else ''}"
    logger.info(
        f"{sums['done']} pictures predicted in {time.perf_counter() - began:.1f} s on {where}, {sums['there']} results existed "
        f"already, {sums['unreadable']} pictures cannot be read; results in {args.save_dir}"
    )
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.deploy.predict_dataset")
