# SPDX-License-Identifier: Apache-2.0
"""Command line of deploy/python/infer.py: runs an exported model on pictures, a video or a camera."""

import argparse
from functools import partial
from pathlib import Path

from paddle_dnl.cli import _arguments
from paddle_dnl.config.choices import EXPORTED_PRECISIONS
from paddle_dnl.deployment.runtime.devices import default_device
from paddle_dnl.errors import UsageError
from paddle_dnl.files.outputs import require_folder

_WARMUP, _REPEATS = 5, 20
# Same number as in PaddleSeg.
_TUNING_IMAGES = 10
# With fewer pictures, starting a process takes longer than overlapping of reading, inference and writing saves.
_PROCESS_FROM_IMAGES = 32

UNDER_LAUNCH = "share"


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of infer.py: PaddleSeg's flags and further ones."""
    parser = argparse.ArgumentParser(description="Runs an exported model and writes label pictures and overlays.")
    add = parser.add_argument
    switch = partial(_arguments.add_switch, parser)
    add("--config", required=True, help="deploy.yaml of the exported folder, or the folder")
    _arguments.add_export_imports(parser)
    add("--image_path", required=True, help="image, folder, .txt list, glob pattern, video, or camera number")
    add("--batch_size", type=int, default=1, help="images, or tiles of an image, per run")
    add("--save_dir", default="./output", help="output folder")
    add("--device", choices=_arguments.DEVICES, help="default: gpu if Paddle Inference has one, else cpu")
    _arguments.add_backend(parser, "paddle", "backend; auto: the fastest one that the export verified")
    switch("--use_trt", False, "use TensorRT on a GPU (not verified)")
    add(
        "--precision",
        choices=EXPORTED_PRECISIONS,
        default="fp32",
        help="on a CPU also int8 (after tools/quantize.py), bf16 (openvino), or fastest: the fastest one verified with images",
    )
    add("--min_subgraph_size", type=int, default=3, help="TensorRT: smallest part of the graph that it runs")
    switch("--enable_auto_tune", False, "TensorRT: first collect tensor shapes from up to 10 images")
    add("--auto_tuned_shape_file", help="TensorRT: file of the tensor shapes, written by --enable_auto_tune")
    add("--cpu_threads", type=int, help="threads of the backend; default: OMP_NUM_THREADS, else the number of cores")
    add("--streams", type=int, help="openvino: batches or tiles that run concurrently; default: 1")
    switch("--enable_mkldnn", False, "use oneDNN; only if the export verified it")
    switch("--benchmark", False, "also measure the backend on the first image")
    add("--model_name", default="", help="name that --benchmark prints")
    switch("--with_argmax", False, "ignored; the argmax of scores is always taken")
    switch("--print_detail", True, "log each image")
    _arguments.add_picture_sizes(parser)
    add("--save_prob", **_arguments.SAVE_PROB)
    _arguments.add_geotiff(parser)
    _arguments.add_shares(parser)
    add(
        "--video_output",
        choices=("video", "frames"),
        default="video",
        help="write an overlay video, or numbered pictures",
    )
    add("--max_frames", type=int, help="video or camera: number of frames; default: all, for a camera until Ctrl-C")
    add("--stride", type=int, default=1, help="video or camera: use every N-th frame; the duration stays the same")
    add(
        "--preview",
        type=int,
        metavar="PORT",
        help="video or camera: serve live overlays for a browser at 127.0.0.1:PORT",
    )
    return parser


def parse_args(argv=None) -> argparse.Namespace:
    """Parses and checks the flags.

    Raises:
        UsageError: invalid values; names the flag.
    """
    args = make_parser().parse_args(argv)
    if args.device is None:
        args.device = default_device(args.backend)
    numbers = ("batch_size", "cpu_threads", "min_subgraph_size", "max_pixels", "max_frames", "streams", "stride")
    _arguments.require_at_least(args, 1, *numbers)
    if args.device != "gpu" and (args.use_trt or args.enable_auto_tune):
        raise UsageError("--use_trt and --enable_auto_tune need --device gpu")
    if args.device == "cpu" and args.precision == "int8":
        if args.backend == "paddle":
            raise UsageError(
                "--precision int8 on a CPU needs ONNX Runtime or OpenVINO; add --backend onnxruntime, openvino or auto"
            )
    elif args.device == "cpu" and args.precision in ("bf16", "fastest"):
        if args.backend not in ("openvino", "auto") and args.precision == "bf16":
            raise UsageError("--precision bf16 on a CPU needs OpenVINO; add --backend openvino (or auto)")
    elif args.precision != "fp32" and not args.use_trt and args.backend == "paddle":
        raise UsageError(
            f"--precision {args.precision} is for --use_trt True, or for --backend onnxruntime or openvino; otherwise use fp32"
        )
    require_folder(args.save_dir)
    return args


def _make_predictor(args: argparse.Namespace, is_long: bool):
    """Creates the predictor; for many pictures Paddle Inference runs in a child process, see `BackendProcess`."""
    from dataclasses import asdict

    from paddle_dnl.deployment.runtime.backend_process import BackendProcess
    from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
    from paddle_dnl.deployment.runtime.options import BackendOptions
    from paddle_dnl.deployment.runtime.predictor import Predictor
    from paddle_dnl.deployment.runtime.selection import resolve_backend

    limits = {"wrong_size": args.wrong_size, "max_pixels": args.max_pixels}
    limits |= {"tile": args.tile, "tile_overlap": args.tile_overlap, "value_range": args.value_range}
    limits |= {"tile_batch": args.batch_size}
    names = (
        "device",
        "cpu_threads",
        "streams",
        "enable_mkldnn",
        "use_trt",
        "precision",
        "min_subgraph_size",
        "auto_tuned_shape_file",
    )
    asked = BackendOptions(**{name: getattr(args, name) for name in names})
    name, options = resolve_backend(args.backend, read_deploy_config(args.config), asked)
    if name == "paddle" and is_long:
        return Predictor(args.config, backend=BackendProcess(args.config, name, **asdict(options)), **limits)
    return Predictor(args.config, backend=name, **limits, **asdict(options))


def _make_job(args: argparse.Namespace, files, inputs: list):
    from paddle_dnl.data.classes import colors_or_palette
    from paddle_dnl.data.images.image_format import ImageFormat
    from paddle_dnl.data.images.pending_images import Shard
    from paddle_dnl.data.images.video_files import is_video
    from paddle_dnl.deployment.runtime.outputs import PictureJob, Results, VideoJob

    to = Results(Path(args.save_dir), colors_or_palette(files.classes), args.print_detail, inputs)
    if is_video(args.image_path):
        for flag in ("save_prob", "geotiff", "shard", "skip_existing", "skip_bad_samples", "no_overlay"):
            if getattr(args, flag):
                raise UsageError(f"--{flag}: is for pictures, not for videos and cameras")
        frames = {"as_frames": args.video_output == "frames", "limit": args.max_frames, "stride": args.stride}
        return VideoJob(args.image_path, to, **frames, preview=args.preview)
    for flag, default in (("stride", 1), ("preview", None)):
        if getattr(args, flag) != default:
            raise UsageError(f"--{flag}: is for videos and cameras, {args.image_path} is neither")
    endings = ImageFormat.of(files).with_range(args.value_range).endings
    return PictureJob(
        args.image_path,
        to,
        endings,
        args.save_prob,
        with_overlays=not args.no_overlay,
        with_geotiff=args.geotiff,
        shard=Shard.of(args.shard),
        skip_existing=args.skip_existing,
    )


def _run(args: argparse.Namespace, predictor, job):
    """Processes all pictures and returns the timing; None if a camera was stopped by Ctrl-C."""
    from paddle_dnl.deployment.runtime.pipeline import run_pipeline
    from paddle_dnl.log import logger, progress

    total = len(job) if hasattr(job, "__len__") else None
    pictures = job.pictures()
    try:
        timing = run_pipeline(
            predictor,
            progress(pictures, "infer", total),
            job.write,
            batch_size=args.batch_size,
            writers=job.writers,
            write_strips=getattr(job, "write_strips", None),
            with_scores=args.save_prob is not None,
            unreadable=job.unreadable if args.skip_bad_samples else None,
        )
        if args.skip_bad_samples:
            job.require_some()
        return timing
    except KeyboardInterrupt:
        if not getattr(job, "is_camera", False):
            raise
        logger.info(f"stopped; results in {args.save_dir}")
        return None
    finally:
        pictures.close()
        job.close()


def main(argv=None) -> int:
    """Processes all pictures or frames; returns the exit status."""
    args = parse_args(argv)
    import warnings

    from paddle_dnl import user_code
    from paddle_dnl.data.images.video_files import is_video
    from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
    from paddle_dnl.files.outputs import check_outputs
    from paddle_dnl.log import logger

    from PIL import Image

    # --max_pixels limits the size.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    user_code.import_for_export(args.custom_imports)
    files = read_deploy_config(args.config)
    inputs = [files.folder / name for name in (files.name, *files.file_names)]
    job = _make_job(args, files, inputs)
    if not is_video(args.image_path) and not len(job):
        logger.info("there are no images to process")
        return 0
    if args.enable_auto_tune:
        from paddle_dnl.deployment.runtime.predictor import Predictor
        from paddle_dnl.files.atomic import new_file

        args.auto_tuned_shape_file = args.auto_tuned_shape_file or str(Path(args.save_dir) / "auto_tuned_shapes.pbtxt")
        check_outputs([args.auto_tuned_shape_file], [args.image_path, *inputs])
        # A first pass over some images, which writes the tensor shapes for TensorRT.
        with new_file(args.auto_tuned_shape_file) as temporary:
            tuning = {"device": args.device, "collect_shapes_file": str(temporary)}
            predictor = Predictor(args.config, value_range=args.value_range, **tuning)
            predictor.predict(job.examples(_TUNING_IMAGES), args.batch_size)
            predictor.close()
    examples = job.examples(1) if args.benchmark else []
    predictor = _make_predictor(args, not hasattr(job, "__len__") or len(job) >= _PROCESS_FROM_IMAGES)
    if args.save_prob:
        predictor.require_scores()
    try:
        timing = _run(args, predictor, job)
        if timing is not None:
            logger.info(
                f"{timing.pictures} images in {timing.seconds:.2f} s with reading and writing; "
                f"results in {getattr(job, 'target', args.save_dir)}"
            )
        if args.benchmark:
            found = predictor.benchmark(examples[0], _WARMUP, _REPEATS, args.batch_size)
            milliseconds = ", ".join(f"{key} {1000 * found[key]:.1f} ms" for key in ("median", "mean", "p90", "p99"))
            logger.info(
                f"benchmark {args.model_name or 'model'}: backend {predictor.backend}, {args.device}, batch {args.batch_size}, "
                f"{_WARMUP} warm-up and {_REPEATS} timed runs: {milliseconds}, {found['ips']:.2f} images/s"
            )
            if timing is not None:
                logger.info(
                    f"pipeline (read, run, write): {timing.rate:.2f} images/s, {timing.rate / found['ips']:.2f} of the backend "
                    f"alone; {timing.pictures} images in {timing.seconds:.2f} s, {timing.backend_seconds:.2f} s in the backend"
                )
    finally:
        predictor.close()
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.infer")
