# SPDX-License-Identifier: Apache-2.0
"""`paddle-dnl configs new`: a commented configuration for a folder of one's own data."""

import argparse
from pathlib import Path


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `configs new`."""
    add = parser.add_argument
    add("--data", required=True, help="folder with train.txt, val.txt and classes.txt")
    # Another name than that of the list's filter, whose default would else be lost.
    add(
        "--model",
        dest="new_model",
        default="dnlnet_resnet50",
        help="dnlnet_resnet18, _resnet50, _resnet101, dmnet_resnet50 or dmnet_resnet101",
    )
    add("--out", required=True, help="the configuration, a .yml file")


def write(args: argparse.Namespace) -> int:
    """Writes the configuration and reads it back; returns the exit status."""
    from paddle_dnl.config.config import Config
    from paddle_dnl.errors import UsageError
    from paddle_dnl.files.atomic import write_text
    from paddle_dnl.log import logger
    from paddle_dnl.profile.free_memory import free_bytes
    from paddle_dnl.training.new_config import make_config

    out = Path(args.out)
    if out.suffix not in (".yml", ".yaml"):
        raise UsageError(f"--out {out}: a configuration file ends in .yml")
    write_text(out, make_config(Path(args.data), args.new_model, free_bytes()))
    Config(str(out))
    logger.info(f"{out}: train with `paddle-dnl train --config {out} --do_eval --save_dir output/mine`")
    return 0
