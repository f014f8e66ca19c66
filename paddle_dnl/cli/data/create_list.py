# SPDX-License-Identifier: Apache-2.0
"""Command line of tools/data/create_dataset_list.py."""

import argparse

from paddle_dnl.errors import UsageError


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of tools/data/create_dataset_list.py."""
    parser = argparse.ArgumentParser(description="Writes train.txt, val.txt and test.txt of a dataset.")
    parser.add_argument("dataset_root", help="folder of the dataset; also the output folder of the lists")
    parser.add_argument(
        "--type",
        choices=("cityscapes", "camvid", "custom"),
        default="custom",
        help="layout of the folders; camvid: `train` beside `trainannot`",
    )
    parser.add_argument(
        "--folder",
        nargs=2,
        default=("images", "annotations"),
        metavar=("IMAGES", "LABELS"),
        help="folders of images and labels",
    )
    parser.add_argument(
        "--second_folder",
        nargs="+",
        help="sub-folders, one list each; default: those of train, val and test that exist",
    )
    parser.add_argument(
        "--pairs", nargs="+", metavar="IMAGES:LABELS", help="pairs of folders instead of --folder, one list each"
    )
    parser.add_argument(
        "--format", nargs=2, metavar=("IMAGE", "LABEL"), help="file extensions; default: jpg png (camvid: png png)"
    )
    parser.add_argument(
        "--postfix",
        nargs=2,
        default=("", ""),
        metavar=("IMAGE", "LABEL"),
        help="suffixes of the file names before the extension",
    )
    parser.add_argument("--separator", default=" ", help="text between image and label in a line")
    return parser


def main(argv=None) -> int:
    """Writes list files; returns the exit status."""
    args = make_parser().parse_args(argv)
    if not args.separator:
        raise UsageError("--separator must not be empty")
    from paddle_dnl.data.prepare import file_lists

    second = args.second_folder or ("train", "val", "test")
    endings = args.format or (("png", "png") if args.type == "camvid" else ("jpg", "png"))
    image_end, label_end = (f"{p}.{f.lstrip('.')}" for p, f in zip(args.postfix, endings, strict=True))
    if args.type == "cityscapes":
        splits = file_lists.split_folders("leftImg8bit", "gtFine", second)
        image_end, label_end = file_lists.CITYSCAPES_ENDINGS
    elif args.pairs:
        splits = []
        for pair in args.pairs:
            images, separator, labels = pair.partition(":")
            if not (images and separator and labels):
                raise UsageError(f"--pairs {pair}: expected IMAGES:LABELS, for example train:trainannot")
            splits.append(file_lists.SplitFolders(images.strip("/").replace("/", "_"), images, labels))
    elif args.type == "camvid":
        splits = file_lists.camvid_folders(second)
    else:
        splits = file_lists.split_folders(*args.folder, second)
    file_lists.write_lists(
        args.dataset_root,
        splits,
        image_end=image_end,
        label_end=label_end,
        separator=args.separator,
        all_exist=bool(args.second_folder or args.pairs),
    )
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.data.create_list")
