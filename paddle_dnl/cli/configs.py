# SPDX-License-Identifier: Apache-2.0
"""Command line of `paddle-dnl configs`: lists, shows and copies configurations of the model zoo; creates new ones."""

import argparse
from pathlib import Path

from paddle_dnl.errors import UsageError
from paddle_dnl.files.atomic import write_text

_COLUMNS = {
    "model": "model", "backbone": "backbone", "dataset": "dataset", "size": "size", "iters": "iterations", "miou": "mIoU",
    "miou_ms_flip": "ms+flip", "source": "published by",
}  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of `paddle-dnl configs`."""
    parser = argparse.ArgumentParser(
        description="Lists the configurations that can be given to --config by name, with the results that their sources "
        "published (this project has not trained on these datasets)."
    )
    parser.add_argument("--dataset", help="only this dataset, such as cityscapes, ade20k or voc")
    parser.add_argument("--model", help="only this model, such as dnlnet or setr")
    actions = parser.add_subparsers(dest="action", metavar="show NAME | copy NAME DIR | new")
    show = actions.add_parser(
        "show", help="print a configuration with its bases merged in", description="Prints a configuration."
    )
    show.add_argument("name", help="name or path")
    copy = actions.add_parser(
        "copy",
        help="write a configuration as a single file to edit",
        description="Writes a configuration as one file to edit.",
    )
    copy.add_argument("name", help="name or path")
    new = actions.add_parser(
        "new", help="write a configuration for your data", description="Writes a commented configuration for your data."
    )
    copy.add_argument("folder", type=Path, help="output folder of NAME.yml; created if missing")
    new.add_argument("--data", required=True, help="folder with train.txt, val.txt and classes.txt")
    models = "dnlnet_resnet18, _resnet50, _resnet101, dmnet_resnet50 or dmnet_resnet101"
    # Another dest than that of the list's filter --model, which would overwrite the default.
    new.add_argument("--model", dest="new_model", default="dnlnet_resnet50", help=models)
    new.add_argument("--out", required=True, help="configuration to write, a .yml file")
    return parser


def _rows() -> list[dict]:
    """Returns the rows of the model zoo, then the configurations without a published result."""
    from paddle_dnl.config.lookup import zoo_configs, zoo_folder
    from paddle_dnl.config.zoo import read_rows

    rows = [{**row, "name": Path(row["config"]).stem} for row in read_rows(zoo_folder() / "zoo.yml")]
    published = {row["name"] for row in rows}
    others = [{"name": name, "dataset": "Mini-Cityscapes"} for name in zoo_configs() if name not in published]
    return rows + others


def _plain(text) -> str:
    return "".join(c for c in str(text).lower() if c.isalnum())


def _list(args: argparse.Namespace) -> str:
    rows = _rows()
    for key in ("dataset", "model"):
        wanted = getattr(args, key)
        if wanted:
            known = sorted({str(row[key]) for row in rows if key in row})
            rows = [row for row in rows if _plain(wanted) in _plain(row.get(key, ""))]
            if not rows:
                raise UsageError(f"--{key} {wanted}: there is none; choose one of {', '.join(known)}")
    cells = [["name", *_COLUMNS.values()]]
    for row in rows:
        values = [row.get(key) for key in _COLUMNS]
        cells.append(
            [row["name"], *("-" if v is None else f"{v:.2f}" if isinstance(v, float) else str(v) for v in values)]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines)


def main(argv=None) -> int:
    """Lists, shows, copies or creates configurations; returns the exit status."""
    args = make_parser().parse_args(argv)
    if args.action is None:
        print(_list(args))
        return 0
    if args.action == "new":
        from paddle_dnl.config.config import Config
        from paddle_dnl.config.new_config import make_config
        from paddle_dnl.files.outputs import check_outputs
        from paddle_dnl.log import logger
        from paddle_dnl.profile.free_memory import free_bytes

        out = Path(args.out)
        if out.suffix not in (".yml", ".yaml"):
            raise UsageError(f"--out {out}: the name must end in .yml")
        check_outputs([out], Path(args.data).glob("*.txt"))
        write_text(out, make_config(Path(args.data), args.new_model, free_bytes()))
        Config(str(out))  # raises an error for a configuration that cannot be trained
        logger.info(f"{out}: train with `paddle-dnl train --config {out} --do_eval --save_dir output/mine`")
        return 0
    import paddle_dnl
    from paddle_dnl.config.lookup import find_config
    from paddle_dnl.config.reading import read_config, to_yaml

    path = find_config(args.name)
    lines = [f"# {path.name} of paddle-dnl {paddle_dnl.__version__}, with its bases merged in"]
    for row in _rows():
        if row["name"] == path.stem and "source" in row:
            facts = [f"{title} {row[key]}" for key, title in _COLUMNS.items() if row.get(key) is not None]
            lines.append(f"# {', '.join(facts)}")
    text = "\n".join([*lines, to_yaml(read_config(path))])
    if args.action == "show":
        print(text, end="")
        return 0
    target = args.folder / f"{path.stem}.yml"
    if target.exists():
        raise UsageError(f"{target}: exists; remove it or give another folder")
    write_text(target, text)
    print(target)
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.configs")
