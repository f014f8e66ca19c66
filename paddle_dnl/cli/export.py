"""Command line of export.py."""

import argparse

from paddle_dnl.cli import _arguments


def parse_args(argv=None) -> argparse.Namespace:
    """The flags of export.py, those of PaddleSeg."""
    parser = argparse.ArgumentParser(description="Writes a static graph for Paddle Inference and checks it.")
    parser.add_argument("--config", required=True, help="YAML configuration")
    parser.add_argument("--opts", nargs="+", metavar="KEY=VALUE", help="replace values of the configuration")
    parser.add_argument("--model_path", help=".pdparams or .safetensors file of trained weights")
    parser.add_argument("--save_dir", default="./output/inference_model", help="folder of the exported model")
    parser.add_argument("--input_shape", nargs=4, type=int, metavar=("N", "C", "H", "W"), help="fixed input size")
    parser.add_argument("--format", choices=("paddle", "onnx"), default="paddle", help="onnx: model.onnx as well")
    parser.add_argument("--output_op", choices=("argmax", "softmax", "none"), default="argmax")
    return parser.parse_args(argv)


def main(argv=None) -> int:
    """Exports and verifies; returns the exit status."""
    args = parse_args(argv)
    model_path = _arguments.require_model_path(args)
    from paddle_dnl.config import Config

    _arguments.select_device("cpu")
    config = Config(args.config, opts=args.opts)
    from paddle_dnl.data.classes import class_info
    from paddle_dnl.deployment.exporter import export_model
    from paddle_dnl.engine.build import build_model

    section = config.dic.get("export") or config.val_dataset_cfg or {}
    classes = class_info(config.train_dataset_cfg["type"], config.model_cfg["num_classes"])
    export_model(
        build_model(config, pretrained=model_path),
        args.save_dir,
        input_shape=args.input_shape,
        output_op=args.output_op,
        transforms=section.get("transforms") or [{"type": "Normalize"}],
        class_info=classes,
        with_onnx=args.format == "onnx",
    )
    return 0
