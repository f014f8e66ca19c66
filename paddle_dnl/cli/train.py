# SPDX-License-Identifier: Apache-2.0
"""Command line of train.py."""

import argparse

from paddle_dnl import log
from paddle_dnl.cli import _arguments
from paddle_dnl.errors import UsageError
from paddle_dnl.log import logger

UNDER_LAUNCH = "group"
LOGGERS = ("visualdl", "tensorboard", "wandb")


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of train.py: PaddleSeg's flags and further ones."""
    parser = argparse.ArgumentParser(description="Trains a segmentation model.")
    _arguments.add_common(parser)
    add = parser.add_argument
    add("--iters", type=int, help="optimizer steps; replaces the configuration's value")
    add("--batch_size", type=int, help="samples per process; replaces the configuration's value")
    add("--learning_rate", type=float, help="replaces the configuration's value")
    add(
        "--scale_lr",
        nargs="?",
        const=0,
        type=int,
        metavar="BATCH",
        help="multiply the learning rate by (images per update of all processes) / BATCH; default: the recipe's batch size",
    )
    add("--pretrained", metavar="FILE", help="initial weights of the backbone, in any format that `convert` reads")
    add("--finetune", metavar="FILE", help="initial weights from a trained model, except layers for other classes")
    add("--num_classes", type=int, metavar="N", help="number of classes; replaces that of model and datasets")
    add(
        "--find_lr",
        nargs="?",
        const=100,
        type=int,
        metavar="STEPS",
        help="only search for a learning rate: train briefly with an increasing rate and write the curve to SAVE_DIR/find_lr",
    )
    add("--from_scratch", action="store_true", help="train without initial weights")
    add("--save_dir", default="./output", help="folder of checkpoints, logs and curves")
    add("--save_interval", type=int, default=1000, help="steps between checkpoints (and evaluations with --do_eval)")
    add("--resume_model", help="checkpoint folder or folder of a run, or `auto` for the newest in --save_dir")
    add("--fresh_optimizer", action="store_true", help="with --resume_model: reset the optimizer's state")
    add("--keep_checkpoint_max", type=int, default=5, help="number of checkpoints to keep besides the best")
    add("--do_eval", action="store_true", help="evaluate at each checkpoint and keep the best model")
    add("--early_stop_intervals", type=int, help="stop after this many evaluations without a better mIoU")
    add("--log_iters", type=int, default=10, help="steps between log lines")
    add("--use_vdl", action="store_true", help="same as --logger visualdl")
    add("--logger", dest="loggers", nargs="+", choices=LOGGERS, default=[], help="also log curves and pictures there")
    _arguments.add_multilabel(parser)
    add("--use_ema", action="store_true", help="keep a moving average of the weights and evaluate it too")
    add("--num_workers", type=int, default=0, help="processes that load data, per rank")
    add("--seed", type=_arguments.seed, help="seed of sample order, augmentation, dropout and initial weights")
    add("--repeats", type=int, default=1, help="number of times that each sample occurs in an epoch")
    add("--profiler_options", help="for example 'batch_range=[10,20]; profile_path=model.profile'")
    add("--skip_bad_samples", action="store_true", help="skip samples that cannot be read, and list them")
    add("--allow_recipe_changes", action="store_true", help="resume although model, classes or normalization differ")
    add("--to_static_training", action="store_true", help="train as a static graph")
    _arguments.add_switch(parser, "--print_mem_info", None, "log the peak GPU memory; default True")
    add("--log_ranks", help="ranks that write log lines, such as 0,1; default: 0")
    add("--output_op", choices=("argmax", "softmax", "none"), help="ignored; a setting of PaddleX, see export.py")
    add("--input_shape", nargs="+", type=int, metavar="N", help="ignored; a setting of PaddleX, see export.py")
    add("--for_fd", action="store_true", help="ignored; a setting of PaddleX, see export.py")
    return parser


def parse_args(argv=None) -> argparse.Namespace:
    """Parses and checks the flags.

    Raises:
        UsageError: invalid values; names the flag.
    """
    args = make_parser().parse_args(argv)
    counts = ("save_interval", "log_iters", "keep_checkpoint_max", "repeats", "early_stop_intervals")
    _arguments.require_at_least(args, 1, *counts)
    _arguments.require_at_least(args, 0, "num_workers", "scale_lr")
    _arguments.require_at_least(args, 2, "num_classes")
    _arguments.require_at_least(args, 20, "find_lr")
    starts = [name for name in ("pretrained", "from_scratch", "finetune") if getattr(args, name)]
    if len(starts) > 1:
        raise UsageError(f"--{starts[0]} and --{starts[1]} contradict each other: remove one of them")
    if args.find_lr is not None and args.resume_model:
        raise UsageError("--find_lr starts a new training and cannot be combined with --resume_model")
    if args.early_stop_intervals and not args.do_eval:
        raise UsageError("--early_stop_intervals needs --do_eval")
    if args.scale_lr is not None and args.find_lr is not None:
        raise UsageError("--find_lr searches for a learning rate and cannot be combined with --scale_lr")
    exporting = [name for name in ("output_op", "input_shape", "for_fd") if getattr(args, name)]
    if exporting:
        logger.warning(f"--{exporting[0]} is ignored, because train.py does not export; give it to export.py")
    return args


def _ranks_of(value: str | int | list[int]) -> set[int]:
    """Parses PaddleSeg's `log_ranks`: `"0,1"`, one number or a list.

    Raises:
        UsageError: not ranks.
    """
    words = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    try:
        ranks = {int(word) for word in words}
    except (TypeError, ValueError):
        ranks = set()
    if not ranks or min(ranks) < 0:
        raise UsageError(f"log_ranks: expected numbers of ranks such as 0,1; got {value!r}")
    return ranks


def main(argv=None) -> int:
    """Trains; returns the exit status."""
    args = parse_args(argv)
    _arguments.select_device(args.device)
    config = _arguments.make_config(
        args,
        learning_rate=args.learning_rate,
        batch_size=args.batch_size,
        iters=args.iters if args.find_lr is None else args.find_lr,
        finetune=args.finetune,
        num_classes=args.num_classes,
        pretrained=args.pretrained,
        from_scratch=args.from_scratch,
        use_multilabel=args.use_multilabel,
    )
    if args.resume_model is None:
        from paddle_dnl.models.start_weights import require_start_weights

        require_start_weights(config)  # before the check of the dataset, which takes longer
    args.to_static_training = args.to_static_training or config.to_static_training
    log.choose_ranks(_ranks_of(config.dic.get("log_ranks", "0") if args.log_ranks is None else args.log_ranks))
    if args.print_mem_info is None:
        args.print_mem_info = config.dic.get("print_mem_info", True)
    if args.do_eval and not config.val_dataset_cfg:
        raise UsageError(f"--do_eval: {args.config} has no val_dataset")
    from paddle_dnl.startup.environment import log_environment
    from paddle_dnl.training.options import TrainOptions
    from paddle_dnl.training.trainer import Trainer, train_from_config

    log_environment(config)
    if args.find_lr is not None:
        from paddle_dnl.training.rate_sweep import RateSweep, SweptParts, sweep_options

        with config.named_in_errors():
            trainer = Trainer(config, sweep_options(TrainOptions.of(args)), SweptParts(config))
        RateSweep(trainer).run()
        return 0
    train_from_config(config, args)
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.train")
