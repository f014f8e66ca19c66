# SPDX-License-Identifier: Apache-2.0
"""Command line of val.py."""

import argparse
from pathlib import Path

from paddle_dnl.cli import _arguments

UNDER_LAUNCH = "group"


def make_parser() -> argparse.ArgumentParser:
    """The flags of val.py, those of PaddleSeg, bf16 and --average."""
    parser = argparse.ArgumentParser(description="Evaluates a model on the val_dataset of its configuration.")
    _arguments.add_common(parser)
    parser.add_argument("--model_path", help=".pdparams or .safetensors file of trained weights")
    parser.add_argument("--num_workers", type=int, default=0, help="processes that load data")
    parser.add_argument("--batch_size", type=int, help="images at once, of equal size; default: test_config's, else 1")
    _arguments.add_switch(parser, "--auc_roc", None, "also the area under the ROC curve; default: test_config's")
    _arguments.add_multilabel(parser)
    _arguments.add_augmented(parser, "aug_eval")
    parser.add_argument("--save_dir", help="write scores.json, classes.csv, confusion.csv and .png, images.csv there")
    parser.add_argument("--save_pred", action="store_true", help="with --save_dir: label pictures, pred/NAME.png")
    parser.add_argument(
        "--save_prob",
        nargs="?",
        const="float16",
        choices=("float16", "uint8"),
        help="with --save_dir: probabilities [K, h, w], prob/NAME.npz; uint8 holds them times 255",
    )
    parser.add_argument(
        "--cityscapes_submission",
        action="store_true",
        help="with --save_dir: cityscapes_submission.zip with labelIds for the test server",
    )
    return parser


def parse_args(argv=None) -> argparse.Namespace:
    """Flags as given, or the exit of argparse."""
    return make_parser().parse_args(argv)


def _outputs(args: argparse.Namespace, dataset):
    """The writer of files that the flags ask for, or None."""
    if not args.save_dir:
        return None
    from paddle_dnl.evaluation.outputs import EvalOutputs, OutputOptions

    return EvalOutputs(
        dataset, OutputOptions(Path(args.save_dir), args.save_pred, args.save_prob, args.cityscapes_submission)
    )


def main(argv=None) -> int:
    """Evaluates and logs the metrics; returns the exit status."""
    args = parse_args(argv)
    model_path = _arguments.require_model_path(args)
    from paddle_dnl import registry
    from paddle_dnl.errors import UsageError

    _arguments.check_common(args)
    config = _arguments.make_config(args, use_multilabel=args.use_multilabel)
    if not config.val_dataset_cfg:
        raise UsageError(f"{args.config} has no val_dataset")
    settings = _arguments.test_settings(args, config, "aug_eval")
    if args.auc_roc is not None:
        settings["auc_roc"] = args.auc_roc
    if args.batch_size is not None:
        if args.batch_size < 1:
            raise UsageError(f"--batch_size must be at least 1, got {args.batch_size}")
        settings["batch_size"] = args.batch_size
    for name in ("save_pred", "save_prob", "cityscapes_submission"):
        if getattr(args, name) and not args.save_dir:
            raise UsageError(f"--{name} needs --save_dir")
    if args.save_dir and settings.get("use_multilabel"):
        raise UsageError("--save_dir: its files are for one class per pixel; with --use_multilabel leave it out")
    from paddle_dnl.data.check import check_dataset
    from paddle_dnl.data.ranks import Ranks
    from paddle_dnl.distributed import collectives
    from paddle_dnl.evaluation.evaluator import evaluate
    from paddle_dnl.evaluation.transform_check import require_restorable
    from paddle_dnl.models.build import build_model
    from paddle_dnl.profile.memory_plan import announce_evaluation

    collectives.initialise()
    dataset = registry.build(config.val_dataset_cfg, "dataset", "val_dataset")
    check_dataset(
        dataset,
        "val_dataset",
        num_workers=args.num_workers,
        ranks=Ranks(collectives.all_gather_object, *collectives.place_on_machine()),
    )
    require_restorable(dataset)
    model = build_model(config, pretrained=model_path)
    announce_evaluation(model, dataset, settings)
    outputs = _outputs(args, dataset)
    settings |= {"num_workers": args.num_workers, "precision": args.precision, "amp_level": args.amp_level}
    result = evaluate(model, dataset, observe=outputs and outputs.observe, **settings)
    if outputs is not None:
        outputs.finish(result, {"config": args.config, "model_path": model_path, "settings": settings})
    collectives.finish()
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.val")
