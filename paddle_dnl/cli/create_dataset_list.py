"""Command line of tools/data/create_dataset_list.py."""

import argparse

from paddle_dnl.errors import UsageError


def make_parser() -> argparse.ArgumentParser:
    """The flags of tools/data/create_dataset_list.py."""
    parser = argparse.ArgumentParser(description="Writes train.txt, val.txt and test.txt of a dataset.")
    parser.add_argument("dataset_root", help="the dataset; lists are written into it")
    parser.add_argument("--type", choices=("cityscapes", "custom"), default="custom")
    parser.add_argument("--folder", nargs=2, default=("images", "annotations"), metavar=("IMAGES", "LABELS"))
    parser.add_argument(
        "--second_folder", nargs="+", default=("train", "val", "test"), help="folders below these, one list each"
    )
    parser.add_argument("--format", nargs=2, default=("jpg", "png"), metavar=("IMAGE", "LABEL"), help="file endings")
    parser.add_argument("--postfix", nargs=2, default=("", ""), metavar=("IMAGE", "LABEL"), help="ends of file stems")
    parser.add_argument("--separator", default=" ", help="between image and label")
    return parser


def main(argv=None) -> int:
    """Writes list files; returns the exit status."""
    args = make_parser().parse_args(argv)
    if not args.separator:
        raise UsageError("--separator must not be empty")
    from paddle_dnl.data.prepare.file_lists import LAYOUTS, write_lists

    if args.type == "cityscapes":
        images, labels, image_end, label_end = LAYOUTS["cityscapes"]
    else:
        images, labels = args.folder
        image_end, label_end = (f"{p}.{f.lstrip('.')}" for p, f in zip(args.postfix, args.format, strict=True))
    write_lists(
        args.dataset_root,
        images=images,
        labels=labels,
        image_end=image_end,
        label_end=label_end,
        separator=args.separator,
        splits=args.second_folder,
    )
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.create_dataset_list")
