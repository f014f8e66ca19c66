"""Command line of deploy/python/infer.py: an exported folder on pictures."""

import argparse
import time
from pathlib import Path

from paddle_dnl.cli._arguments import true_or_false
from paddle_dnl.errors import UsageError

_OVERLAYS = "added_prediction"
_WARMUP, _REPEATS = 5, 20
# PaddleSeg tunes on this many images too.
_TUNING_IMAGES = 10


def parse_args(argv=None) -> argparse.Namespace:
    """The flags of infer.py, those of PaddleSeg and --engine."""
    parser = argparse.ArgumentParser(description="Runs an exported model and writes label pictures and overlays.")
    add = parser.add_argument

    def switch(name: str, default: bool, text: str) -> None:
        # Both `--flag` and `--flag True`, as scripts and TIPC pass them.
        add(name, type=true_or_false, nargs="?", const=True, default=default, metavar="True|False", help=text)

    add("--config", required=True, help="deploy.yaml of the exported folder, or the folder")
    add("--image_path", required=True, help="an image, a folder, a .txt list, or a pattern with *")
    add("--batch_size", type=int, default=1)
    add("--save_dir", default="./output", help="folder of the label pictures")
    add("--device", choices=("cpu", "gpu"), default="cpu")
    add("--engine", choices=("paddle", "onnxruntime", "auto"), default="paddle")
    switch("--use_trt", False, "TensorRT on GPU (not verified on any machine yet)")
    add("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="of TensorRT")
    add("--min_subgraph_size", type=int, default=3)
    switch("--enable_auto_tune", False, "collect shapes for TensorRT first")
    add("--auto_tuned_shape_file", help="shapes for TensorRT; written by --enable_auto_tune")
    add("--cpu_threads", type=int, help="default OMP_NUM_THREADS, else one per core")
    switch("--enable_mkldnn", False, "oneDNN; only where the export verified it")
    switch("--benchmark", False, "time the engine on the first image too")
    add("--model_name", default="", help="name shown by --benchmark")
    switch("--with_argmax", False, "accepted; scores are always turned into classes")
    switch("--print_detail", True, "log each image")
    args = parser.parse_args(argv)
    _check(args)
    return args


def _check(args: argparse.Namespace) -> None:
    for name in ("batch_size", "cpu_threads", "min_subgraph_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} must be at least 1, got {value}")
    if args.device == "cpu" and (args.use_trt or args.enable_auto_tune):
        raise UsageError("--use_trt and --enable_auto_tune need --device gpu")
    if args.precision != "fp32" and not args.use_trt:
        raise UsageError(f"--precision {args.precision} is for --use_trt True; without TensorRT leave it fp32")
    if Path(args.save_dir).exists() and not Path(args.save_dir).is_dir():
        raise UsageError(f"--save_dir {args.save_dir}: is a file; give a folder")


def _engine_options(args: argparse.Namespace) -> dict:
    names = ("device", "cpu_threads", "enable_mkldnn", "use_trt", "precision", "min_subgraph_size")
    return {name: getattr(args, name) for name in (*names, "auto_tuned_shape_file")}


def _collect_shapes(args: argparse.Namespace, images: list) -> None:
    """A first pass over some images that writes the shapes TensorRT is to be built for."""
    from paddle_dnl.engine.predictor import Predictor

    if args.auto_tuned_shape_file is None:
        Path(args.save_dir).mkdir(parents=True, exist_ok=True)
        args.auto_tuned_shape_file = str(Path(args.save_dir) / "auto_tuned_shapes.pbtxt")
    predictor = Predictor(args.config, device=args.device, collect_shapes_file=args.auto_tuned_shape_file)
    predictor.predict([path for path, _ in images[:_TUNING_IMAGES]], args.batch_size)


def _save(folder: Path, name: Path, path: Path, label, colors) -> None:
    from paddle_dnl.data.reading import read_image
    from paddle_dnl.visualize.overlay import overlay, save_image, save_label_png

    name = name.with_suffix(".png")
    save_label_png(folder / name, label, colors)
    save_image(folder / _OVERLAYS / name, overlay(read_image(path), label, colors))


def _benchmark(predictor, image: Path, args: argparse.Namespace) -> None:
    from paddle_dnl.log import logger

    found = predictor.benchmark(image, _WARMUP, _REPEATS, args.batch_size)
    milliseconds = ", ".join(f"{key} {1000 * found[key]:.1f} ms" for key in ("median", "mean", "p90", "p99"))
    logger.info(
        f"benchmark {args.model_name or 'model'}: engine {predictor.engine}, {args.device}, batch {args.batch_size}, "
        f"{_WARMUP} warm-up and {_REPEATS} timed runs: {milliseconds}, {found['ips']:.2f} images/s"
    )


def main(argv=None) -> int:
    """Predicts all images; returns the exit status."""
    args = parse_args(argv)
    from paddle_dnl.data.classes import bit_palette
    from paddle_dnl.data.image_files import find_images
    from paddle_dnl.engine.predictor import Predictor
    from paddle_dnl.log import logger, progress

    images = find_images(args.image_path)
    if any(name.parts[0] == _OVERLAYS and len(name.parts) > 1 for _, name in images):
        raise UsageError(f"--image_path {args.image_path}: a folder {_OVERLAYS} in it would mix with the overlays")
    if args.enable_auto_tune:
        _collect_shapes(args, images)
    predictor = Predictor(args.config, engine=args.engine, **_engine_options(args))
    colors = predictor.classes.colors if predictor.classes else bit_palette(256)
    folder = Path(args.save_dir)
    began = time.perf_counter()
    for start in progress(range(0, len(images), args.batch_size), "infer"):
        chunk = images[start : start + args.batch_size]
        labels = predictor.predict([path for path, _ in chunk], args.batch_size)
        for (path, name), label in zip(chunk, labels, strict=True):
            _save(folder, name, path, label, colors)
            if args.print_detail:
                logger.info(f"{path} -> {folder / name.with_suffix('.png')}")
    seconds = time.perf_counter() - began
    logger.info(f"{len(images)} images in {seconds:.2f} s with reading and writing; results in {folder}")
    if args.benchmark:
        _benchmark(predictor, images[0][0], args)
    return 0
