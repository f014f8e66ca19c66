# SPDX-License-Identifier: Apache-2.0
"""Command line of tools/attention_statistics.py."""

import argparse
import json
from pathlib import Path

from paddle_dnl.cli import _arguments
from paddle_dnl.errors import UsageError


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of tools/attention_statistics.py."""
    parser = argparse.ArgumentParser(
        description="Measures on the val_dataset the share of attention on the query's category and on boundaries; "
        "docs/attention.md defines the measures."
    )
    _arguments.add_config(parser, "one YAML configuration per model", nargs="+")
    parser.add_argument("--model_path", required=True, nargs="+", help="weights, in the order of --config")
    parser.add_argument(
        "--name", nargs="+", help="names of the models in the table; default: names of the configurations"
    )
    parser.add_argument("--queries", type=int, default=64, help="query points per image")
    parser.add_argument("--num_images", type=int, help="use only the first images; default: all")
    parser.add_argument("--boundary_width", type=int, default=5, help="pixels on each side of a boundary in the label")
    parser.add_argument("--seed", type=_arguments.seed, default=0, help="seed of the choice of query points")
    parser.add_argument(
        "--save_dir", default="./output/attention", help="output folder of attention_statistics.json, .md, .png"
    )
    parser.add_argument("--device", choices=_arguments.DEVICES, help="default: gpu if available, else cpu")
    return parser


def parse_args(argv=None) -> argparse.Namespace:
    """Parses and checks the flags.

    Raises:
        UsageError: invalid values; names the flag.
    """
    args = make_parser().parse_args(argv)
    args.name = args.name or [Path(config).stem for config in args.config]
    for flag in ("model_path", "name"):
        if len(getattr(args, flag)) != len(args.config):
            raise UsageError(
                f"--{flag}: expected {len(args.config)}, one for each --config; got {len(getattr(args, flag))}"
            )
    if len(set(args.name)) < len(args.name):
        raise UsageError("--name: names must differ")
    _arguments.require_at_least(args, 1, "queries", "num_images", "boundary_width")
    return args


def measure(config, model_path: str, args: argparse.Namespace) -> dict:
    """Returns the statistics of one model on the val_dataset."""
    from paddle_dnl import registry
    from paddle_dnl.analysis.geometry import Geometry
    from paddle_dnl.analysis.nonlocal_maps import nonlocal_attention
    from paddle_dnl.analysis.statistics import AttentionStatistics
    from paddle_dnl.data.checking.check import check_dataset
    from paddle_dnl.log import progress
    from paddle_dnl.models.build import build_model

    import paddle

    if not config.val_dataset_cfg:
        raise UsageError(f"{args.config} has no val_dataset")
    dataset = registry.build(config.val_dataset_cfg, "dataset", "val_dataset")
    check_dataset(dataset, "val_dataset", num_workers=0)
    model = build_model(config, pretrained=model_path)
    found = AttentionStatistics(args.queries, args.seed, args.boundary_width, dataset.ignore_index)
    count = min(len(dataset), args.num_images or len(dataset))
    for index in progress(range(count), "measure"):
        sample = dataset[index]
        image = paddle.to_tensor(sample["img"][None])
        block, *others = nonlocal_attention(model, image)
        if others:
            raise UsageError(f"{args.config}: the model has {1 + len(others)} blocks; the statistics support one")
        align = getattr(model, "align_corners", False)
        geometry = Geometry(image.shape[2:], block.size, sample["trans_info"], align)
        found.add(block, sample["label"][0], geometry.cells())
    return found.result()


def main(argv=None) -> int:
    """Measures all models and writes table, JSON and chart; returns the exit status."""
    args = parse_args(argv)

    _arguments.select_device(args.device)
    configs = [_arguments.make_config(args, path) for path in args.config]
    from paddle_dnl.analysis.chart import draw_chart, table
    from paddle_dnl.files.atomic import write_text
    from paddle_dnl.files.outputs import check_outputs
    from paddle_dnl.log import logger

    out = Path(args.save_dir)
    targets = {ending: out / f"attention_statistics.{ending}" for ending in ("json", "md", "png")}
    read = [path for config in configs for path in config.files] + args.model_path
    check_outputs(targets.values(), read, root=out)
    results = {
        name: measure(config, weights, args)
        for name, config, weights in zip(args.name, configs, args.model_path, strict=True)
    }
    text = table(results)
    write_text(targets["json"], json.dumps(results, indent=1) + "\n")
    write_text(targets["md"], text)
    draw_chart(results, targets["png"])
    logger.info(f"attention on the query's category and on boundaries:\n{text}")
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.analysis.measure_maps")
