# SPDX-License-Identifier: Apache-2.0
"""Writes the list files (`train.txt`, `val.txt`, `test.txt`) of a dataset from its folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paddle_dnl.data.images.image_files import walk_files
from paddle_dnl.errors import DataError
from paddle_dnl.files.atomic import write_text
from paddle_dnl.files.outputs import check_outputs
from paddle_dnl.log import logger


@dataclass(frozen=True)
class SplitFolders:
    """The folders of one split, relative to the dataset, and the name of its list."""

    name: str
    images: str
    labels: str


def split_folders(images: str, labels: str, splits: Sequence[str]) -> list[SplitFolders]:
    """PaddleSeg's layout: one folder per split below `images` and below `labels`; `.` means these two folders themselves."""
    return [
        SplitFolders("all" if Path(split) == Path(".") else split, f"{images}/{split}", f"{labels}/{split}")
        for split in splits
    ]


def camvid_folders(splits: Sequence[str]) -> list[SplitFolders]:
    """CamVid's layout: `train` beside `trainannot`."""
    return [SplitFolders(split, split, f"{split}annot") for split in splits]


# Ending of images, ending of labels.
CITYSCAPES_ENDINGS = ("_leftImg8bit.png", "_gtFine_labelTrainIds.png")


def _one_split(root: Path, split: SplitFolders, image_end: str, label_end: str, separator: str):
    """The lines of one split. A label has the name of its image with another ending."""
    lines, missing = [], []
    folder = root / split.images
    for image in walk_files(folder, (image_end.lower(),)):
        below = image.relative_to(folder).parent
        label = root / split.labels / below / (image.name[: -len(image_end)] + label_end)
        if label == image:
            raise DataError(
                f"{image}: would be its own label; give another folder or another ending for labels "
                "(--folder, --postfix, --format)"
            )
        names = [image.relative_to(root).as_posix(), label.relative_to(root).as_posix()]
        clash = [name for name in names if separator in name]
        if clash:
            raise DataError(f"{clash[0]}: holds the separator {separator!r}; choose another with --separator")
        if label.is_file():
            lines.append(separator.join(names))
        elif split.name == "test":
            lines.append(names[0])
        else:
            missing.append(str(label))
    return lines, missing


def write_lists(
    root: str | Path,
    splits: Sequence[SplitFolders],
    *,
    image_end: str,
    label_end: str,
    separator: str = " ",
    all_exist: bool = False,
) -> dict[str, int]:
    """Writes a list for each split that has images. Returns the number of lines of each.

    Args:
        root: folder of the dataset; lists are written into it, with names relative to it.
        splits: folders of the splits; images of `test` need no labels.
        image_end, label_end: endings of file names, such as `.jpg` and `.png`; that of images is case-insensitive.
        separator: between image and label.
        all_exist: refuse a missing folder of any split; otherwise one folder must exist.

    Raises:
        DataError: a folder, all images or a label are missing, an image would be its own label, or a file name contains the
            separator.
        OutputError: a list of this name exists that this package did not write, for instance one written by hand.
    """
    root = Path(root)
    absent = [root / split.images for split in splits if not (root / split.images).is_dir()]
    if absent and (all_exist or len(absent) == len(splits)):
        raise DataError(f"{absent[0]}: no such folder of images")
    found, missing = {}, []
    for split in splits:
        lines, lost = _one_split(root, split, image_end, label_end, separator)
        missing += lost
        if lines:
            found[split.name] = lines
        elif (root / split.images).is_dir() and not lost:
            logger.warning(f"{root / split.images}: no *{image_end} there; no {split.name}.txt is written")
    if missing:
        raise DataError(f"{len(missing)} labels are missing, first {missing[0]}; convert or remove the images first")
    if not found:
        raise DataError(f"{root}: no *{image_end} in {', '.join(split.images for split in splits)}")
    check_outputs((root / f"{name}.txt" for name in found), (), root=root)
    for name, lines in found.items():
        write_text(root / f"{name}.txt", "\n".join(lines) + "\n")
        logger.info(f"{root / f'{name}.txt'}: {len(lines)} lines")
    return {name: len(lines) for name, lines in found.items()}
