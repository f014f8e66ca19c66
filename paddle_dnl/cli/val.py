# SPDX-License-Identifier: Apache-2.0
"""Command line of val.py."""

import argparse
from pathlib import Path

from paddle_dnl.cli import _arguments
from paddle_dnl.errors import UsageError

# Precisions of exported models only.
_EXPORTED_PRECISIONS = ("int8", "fastest")

UNDER_LAUNCH = "group"


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of val.py: PaddleSeg's flags and further ones."""
    parser = argparse.ArgumentParser(
        description="Evaluates a model or an exported model on the val_dataset of a configuration."
    )
    _arguments.add_common(parser, ("fp32", "fp16", "bf16", *_EXPORTED_PRECISIONS))
    parser.add_argument("--model_path", help=".pdparams or .safetensors file of trained weights")
    parser.add_argument(
        "--exported", metavar="DIR", help="evaluate a folder written by export.py instead of --model_path"
    )
    _arguments.add_backend(parser, None, "backend of --exported; default: paddle")
    parser.add_argument("--num_workers", type=int, default=0, help="processes that load data")
    parser.add_argument(
        "--batch_size", type=int, help="images of equal size per batch; default: from test_config, else 1"
    )
    _arguments.add_switch(
        parser, "--auc_roc", None, "also compute the area under the ROC curve; default: from test_config"
    )
    _arguments.add_multilabel(parser)
    _arguments.add_augmented(parser, "aug_eval")
    parser.add_argument("--save_dir", help="folder for scores.json, classes.csv, confusion.csv and .png, images.csv")
    parser.add_argument(
        "--save_pred", action="store_true", help="with --save_dir: also write label pictures or masks, pred/NAME.png"
    )
    text = "with --save_dir: also write probabilities [K, H, W], prob/NAME.npz; uint8 stores round(255 * p)"
    parser.add_argument("--save_prob", **_arguments.SAVE_PROB | {"help": text})
    parser.add_argument(
        "--cityscapes_submission",
        action="store_true",
        help="with --save_dir: also write cityscapes_submission.zip with labelIds for the test server",
    )
    return parser


def _exported(args: argparse.Namespace, settings: dict, dataset_cfg: dict) -> tuple:
    """Returns the exported model, and the dataset's configuration with the transforms of the exported model."""
    from paddle_dnl.deployment.exported_model import ExportedModel
    from paddle_dnl.deployment.runtime.devices import default_device
    from paddle_dnl.log import logger

    backend = args.backend or "paddle"
    device = args.device or default_device(backend)
    model = ExportedModel(args.exported, backend, device=device, precision=args.precision)
    model.require_settings(settings | {"save_prob": args.save_prob})
    if list(dataset_cfg.get("transforms") or []) != model.files.transforms:
        logger.warning(
            f"val_dataset.transforms differ from those of {args.exported}; the latter are used, as in deployment"
        )
    return model, dataset_cfg | {"transforms": model.files.transforms}


def main(argv=None) -> int:
    """Evaluates and logs the metrics; returns the exit status."""
    args = make_parser().parse_args(argv)
    if args.exported is None:
        if args.backend is not None:
            raise UsageError(f"--backend {args.backend}: is for --exported")
        if args.precision in _EXPORTED_PRECISIONS:
            raise UsageError(f"--precision {args.precision}: is for --exported")
        _arguments.require_model_path(args)
    elif args.model_path is not None:
        raise UsageError("--model_path and --exported: give one of them")
    elif args.data_format != "NCHW":
        raise UsageError(f"--data_format {args.data_format}: is not for --exported")
    from paddle_dnl import registry

    _arguments.select_device(args.device)
    config = _arguments.make_config(args, use_multilabel=args.use_multilabel, for_training=False)
    if not config.val_dataset_cfg:
        raise UsageError(f"{args.config} has no val_dataset")
    settings = _arguments.test_settings(args, config, "aug_eval")
    if args.auc_roc is not None:
        settings["auc_roc"] = args.auc_roc
    if args.batch_size is not None:
        _arguments.require_at_least(args, 1, "batch_size")
        settings["batch_size"] = args.batch_size
    for name in ("save_pred", "save_prob", "cityscapes_submission"):
        if getattr(args, name) and not args.save_dir:
            raise UsageError(f"--{name} needs --save_dir")
        if getattr(args, name) and name != "save_pred" and settings.get("use_multilabel"):
            raise UsageError(f"--{name} is for one class per pixel; remove it, or --use_multilabel")
    from paddle_dnl.data.checking.check import check_dataset
    from paddle_dnl.data.checking.ranks import Ranks
    from paddle_dnl.distributed import collectives
    from paddle_dnl.evaluation.evaluator import evaluate
    from paddle_dnl.evaluation.mask_outputs import MaskOutputs
    from paddle_dnl.evaluation.outputs import EvalOutputs, OutputOptions
    from paddle_dnl.evaluation.transform_check import require_restorable
    from paddle_dnl.models.build import build_model
    from paddle_dnl.profile.memory_plan import announce_evaluation
    from paddle_dnl.training import amp

    collectives.initialise()
    dataset_cfg, model = config.val_dataset_cfg, None
    if args.exported:
        model, dataset_cfg = _exported(args, settings, dataset_cfg)
    dataset = registry.build(dataset_cfg, "dataset", "val_dataset")
    ranks = Ranks(collectives.all_gather_object, *collectives.place_on_machine())
    check_dataset(dataset, "val_dataset", num_workers=args.num_workers, ranks=ranks)
    require_restorable(dataset)
    settings |= {"num_workers": args.num_workers, "precision": args.precision, "amp_level": args.amp_level}
    if model is not None:
        model.require_dataset(dataset)
        about = {"exported": args.exported, "backend": model.predictor.backend, "backend_precision": args.precision}
        settings["precision"] = "fp32"  # of the evaluation code; the backend has its own precision
    else:
        model = build_model(config, pretrained=args.model_path)
        amp.set_data_format(model, args.data_format, args.precision)
        announce_evaluation(model, dataset, settings)
        about = {"model_path": args.model_path}
    outputs = None
    if args.save_dir and getattr(dataset, "multilabel", False):
        outputs = MaskOutputs(dataset, Path(args.save_dir), args.save_pred)
    elif args.save_dir:
        wanted = OutputOptions(Path(args.save_dir), args.save_pred, args.save_prob, args.cityscapes_submission)
        outputs = EvalOutputs(dataset, wanted)
    result = evaluate(model, dataset, observe=outputs and outputs.observe, **settings)
    if outputs is not None:
        outputs.finish(result, {"config": args.config, **about, "settings": settings})
    collectives.finish()
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.val")
