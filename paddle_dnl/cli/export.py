# SPDX-License-Identifier: Apache-2.0
"""Command line of export.py."""

import argparse
import shlex
from pathlib import Path

from paddle_dnl.cli import _arguments
from paddle_dnl.errors import ExportError, UsageError


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of export.py: PaddleSeg's flags and further ones."""
    parser = argparse.ArgumentParser(description="Exports a static graph for Paddle Inference and verifies it.")
    _arguments.add_config(parser)
    parser.add_argument("--model_path", help=".pdparams or .safetensors file of trained weights")
    parser.add_argument("--save_dir", default="./output/inference_model", help="folder of the exported model")
    parser.add_argument(
        "--input_shape",
        nargs=4,
        type=int,
        metavar=("N", "C", "H", "W"),
        help="input shape, -1 for free axes; default: free batch and size, if the graph then computes the same as the model",
    )
    parser.add_argument(
        "--format",
        choices=("paddle", "onnx", "triton"),
        default="paddle",
        help="onnx: also write model.onnx; triton: also write a model repository for NVIDIA Triton in triton/",
    )
    parser.add_argument(
        "--triton_name", metavar="NAME", help="name of the model in Triton; default: name of the configuration"
    )
    parser.add_argument(
        "--triton_backend", choices=("onnxruntime", "openvino"), help="Triton's backend; default: onnxruntime"
    )
    parser.add_argument(
        "--fp16",
        action="store_true",
        help="with --format onnx or triton: also write model_fp16.onnx for GPUs, with attention logits in float32",
    )
    parser.add_argument(
        "--output_op",
        choices=("argmax", "softmax", "none"),
        help="output: class numbers (the default), probabilities or logits",
    )
    # PaddleSeg 2.5's form of --output_op.
    text = "the same as --output_op none, or softmax with --with_softmax"
    parser.add_argument("--without_argmax", action="store_true", help=text)
    parser.add_argument("--with_softmax", action="store_true", help="with --without_argmax: --output_op softmax")
    parser.add_argument(
        "--allow_random",
        action="store_true",
        help="export a model with random numbers in evaluation; the comparison allows its spread",
    )
    parser.add_argument(
        "--verify_images",
        metavar="LIST",
        help="list file with an image and, for mIoU, a label per line; compares backends and precisions on up to 100 of them",
    )
    parser.add_argument(
        "--for_fd", action="store_true", help="use the file names of FastDeploy and PaddleX: inference.yml, ..."
    )
    return parser


def parse_args(argv=None) -> argparse.Namespace:
    """Parses and checks the flags.

    Raises:
        UsageError: flags that cannot be combined.
    """
    args = make_parser().parse_args(argv)
    for flag in ("triton_name", "triton_backend"):
        if getattr(args, flag) and args.format != "triton":
            raise UsageError(f"--{flag}: is for --format triton")
    for flag in ("without_argmax", "with_softmax"):
        if getattr(args, flag) and args.output_op is not None:
            raise UsageError(f"--{flag}: is PaddleSeg 2.5's form of --output_op; give one of them")
    if args.output_op is None:
        scores = "softmax" if args.with_softmax else "none"
        args.output_op = scores if args.without_argmax else "argmax"
    return args


def _command(args: argparse.Namespace, config) -> str:
    """Returns the command of the same export for a fixed size: the given batch size and the training's crop size."""
    batch = next((size for size in args.input_shape or () if size > 0), 1)
    dataset = config.train_dataset_cfg or {}
    crops = (step.get("crop_size") for step in dataset.get("transforms") or ())
    fitting = (
        crop
        for crop in crops
        if isinstance(crop, list) and len(crop) == 2 and all(isinstance(v, int) and v > 0 for v in crop)
    )
    width, height = next(fitting, (1024, 512))
    channels = dataset.get("img_channels", 3)
    return (
        f"paddle-dnl export --config {shlex.quote(args.config)} --model_path {shlex.quote(args.model_path)} "
        f"--save_dir {shlex.quote(args.save_dir)} --input_shape {batch} {channels} {height} {width}"
    )


def main(argv=None) -> int:
    """Exports and verifies; returns the exit status."""
    args = parse_args(argv)
    model_path = _arguments.require_model_path(args)
    _arguments.select_device("cpu")
    config = _arguments.make_config(args, for_training=False)
    from paddle_dnl.data.classes import classes_of_config
    from paddle_dnl.data.images.image_files import find_pairs
    from paddle_dnl.data.images.image_format import ImageFormat
    from paddle_dnl.data.label_rule import label_rule
    from paddle_dnl.deployment.export.exporter import export_model
    from paddle_dnl.deployment.export.image_check import MAX_IMAGES, ImageCheck, evenly_sampled
    from paddle_dnl.deployment.export.shapes import FreeSizeError
    from paddle_dnl.deployment.export.triton import Repository
    from paddle_dnl.deployment.model_names import name_from
    from paddle_dnl.models.build import build_model

    # The preprocessing to store: `export.transforms`, else that of the val_dataset.
    prepared = config.dic.get("export") or {}
    if "transforms" not in prepared:
        prepared = config.val_dataset_cfg
    if not prepared:
        raise UsageError(
            f"{config.path}: has no val_dataset, which would define the preprocessing; define it, for example with "
            "--opts 'export.transforms=[{type: Normalize}]'"
        )
    repository = None
    if args.format == "triton":
        name = args.triton_name or name_from(Path(args.config).stem)
        repository = Repository(name, args.triton_backend or "onnxruntime")
    pairs = evenly_sampled(find_pairs(args.verify_images), MAX_IMAGES) if args.verify_images else []
    try:
        export_model(
            build_model(config, pretrained=model_path),
            args.save_dir,
            input_shape=args.input_shape,
            output_op=args.output_op,
            transforms=list(prepared.get("transforms") or []),
            image_format=ImageFormat.of(config.val_dataset_cfg or config.train_dataset_cfg),
            label_rule=label_rule(config.val_dataset_cfg or config.train_dataset_cfg, "val_dataset"),
            class_info=classes_of_config(config),
            allow_random=args.allow_random,
            with_onnx=args.format != "paddle",
            repository=repository,
            with_fp16=args.fp16,
            for_fd=args.for_fd,
            inputs=[*config.files, model_path, args.verify_images, *(path for pair in pairs for path in pair)],
            image_check=ImageCheck(pairs) if pairs else None,
        )
    except FreeSizeError as error:
        raise ExportError(f"{error}. For a fixed size run\n{_command(args, config)}") from error
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.export")
