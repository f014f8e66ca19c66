"""Command line of deploy/python/infer.py: an exported folder on pictures."""

import argparse
import time
from pathlib import Path

from paddle_dnl.cli._arguments import true_or_false
from paddle_dnl.errors import UsageError


def parse_args(argv=None) -> argparse.Namespace:
    """The flags of infer.py, those of PaddleSeg and --engine."""
    parser = argparse.ArgumentParser(description="Runs an exported model and writes label pictures and overlays.")
    add = parser.add_argument
    add("--config", required=True, help="deploy.yaml of the exported folder, or the folder")
    add("--image_path", required=True, help="an image, a folder, a .txt list, or a pattern with *")
    add("--batch_size", type=int, default=1)
    add("--save_dir", default="./output", help="folder of the label pictures")
    add("--device", choices=("cpu", "gpu"), default="cpu")
    add("--engine", choices=("paddle", "onnxruntime", "auto"), default="paddle")
    add("--use_trt", type=true_or_false, default=False, help="TensorRT on GPU (not verified on any machine yet)")
    add("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="of TensorRT")
    add("--min_subgraph_size", type=int, default=3)
    add("--enable_auto_tune", type=true_or_false, default=False, help="collect shapes for TensorRT first")
    add("--auto_tuned_shape_file", default=None)
    add("--cpu_threads", type=int, help="default OMP_NUM_THREADS, else one per core")
    add("--enable_mkldnn", type=true_or_false, default=False, help="oneDNN; only where the export verified it")
    add("--benchmark", type=true_or_false, default=False, help="time the engine on the first image too")
    add("--model_name", default="", help="name shown by --benchmark")
    add("--with_argmax", action="store_true", help="accepted; scores are always turned into classes")
    add("--print_detail", type=true_or_false, default=True, help="log each image")
    args = parser.parse_args(argv)
    if args.batch_size < 1:
        raise UsageError(f"--batch_size must be at least 1, got {args.batch_size}")
    if args.cpu_threads is not None and args.cpu_threads < 1:
        raise UsageError(f"--cpu_threads must be at least 1, got {args.cpu_threads}")
    if args.device == "cpu" and (args.use_trt or args.enable_auto_tune):
        raise UsageError("--use_trt and --enable_auto_tune need --device gpu")
    if args.device == "cpu" and args.precision != "fp32":
        raise UsageError(f"--precision {args.precision} is for TensorRT; on CPU leave it fp32")
    return args


def _save(folder: Path, name: Path, path: Path, label, colors) -> None:
    from paddle_dnl.data.reading import read_image
    from paddle_dnl.visualize.overlay import overlay, save_image, save_label_png

    name = name.with_suffix(".png")
    save_label_png(folder / name, label, colors)
    save_image(folder / "added_prediction" / name, overlay(read_image(path), label, colors))


def main(argv=None) -> int:
    """Predicts all images; returns the exit status."""
    args = parse_args(argv)
    from paddle_dnl.data.classes import bit_palette
    from paddle_dnl.data.image_files import find_images
    from paddle_dnl.engine.predictor import Predictor
    from paddle_dnl.log import logger, progress

    images = find_images(args.image_path)
    predictor = Predictor(
        args.config,
        engine=args.engine,
        device=args.device,
        cpu_threads=args.cpu_threads,
        enable_mkldnn=args.enable_mkldnn,
        use_trt=args.use_trt,
        precision=args.precision,
        min_subgraph_size=args.min_subgraph_size,
        auto_tuned_shape_file=args.auto_tuned_shape_file,
    )
    colors = predictor.classes.colors if predictor.classes else bit_palette(256)
    folder = Path(args.save_dir)
    began = time.perf_counter()
    starts = range(0, len(images), args.batch_size)
    for start in progress(starts, "infer"):
        chunk = images[start : start + args.batch_size]
        labels = predictor.predict([path for path, _ in chunk], args.batch_size)
        for (path, name), label in zip(chunk, labels, strict=True):
            _save(folder, name, path, label, colors)
            if args.print_detail:
                logger.info(f"{path} -> {folder / name.with_suffix('.png')}")
    seconds = time.perf_counter() - began
    logger.info(f"{len(images)} images in {seconds:.2f} s with reading and writing; results in {folder}")
    if args.benchmark:
        found = predictor.benchmark(images[0][0], batch_size=args.batch_size)
        logger.info(
            f"benchmark {args.model_name} engine {args.engine} batch {args.batch_size}: median {1000 * found['median']:.1f} ms, "
            f"p90 {1000 * found['p90']:.1f} ms, p99 {1000 * found['p99']:.1f} ms, {found['ips']:.2f} images/s"
        )
    return 0
