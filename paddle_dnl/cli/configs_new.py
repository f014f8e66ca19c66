"""Command line of `paddle-dnl configs new`."""

import argparse
from pathlib import Path


def make_parser() -> argparse.ArgumentParser:
    """The flags of `configs new`."""
    parser = argparse.ArgumentParser(description="Writes a commented configuration for a folder of your own data.")
    add = parser.add_argument
    add("--data", required=True, help="folder with train.txt, val.txt and classes.txt")
    add(
        "--model",
        default="dnlnet_resnet50",
        help="dnlnet_resnet18, _resnet50, _resnet101, dmnet_resnet50 or dmnet_resnet101",
    )
    add("--out", required=True, help="the configuration, a .yml file")
    return parser


def main(argv=None) -> int:
    """Writes the configuration and reads it back; returns the exit status."""
    args = make_parser().parse_args(argv)
    from paddle_dnl.config import Config
    from paddle_dnl.errors import UsageError
    from paddle_dnl.files.atomic import write_text
    from paddle_dnl.log import logger
    from paddle_dnl.profile.free_memory import free_bytes
    from paddle_dnl.training.new_config import make_config

    out = Path(args.out)
    if out.suffix not in (".yml", ".yaml"):
        raise UsageError(f"--out {out}: a configuration file ends in .yml")
    write_text(out, make_config(Path(args.data), args.model, free_bytes()))
    Config(str(out))
    logger.info(f"{out}: train with `paddle-dnl train --config {out} --do_eval --save_dir output/mine`")
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.configs_new")
