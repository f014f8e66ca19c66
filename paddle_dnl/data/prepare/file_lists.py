"""List files (`train.txt`, `val.txt`, `test.txt`) of a dataset's folders."""

from collections.abc import Sequence
from pathlib import Path

from paddle_dnl.errors import DataError
from paddle_dnl.files.atomic import write_text
from paddle_dnl.files.outputs import check_outputs
from paddle_dnl.log import logger

SPLITS = ("train", "val", "test")

# Folder of images, folder of labels, ending of images, ending of labels.
LAYOUTS = {"cityscapes": ("leftImg8bit", "gtFine", "_leftImg8bit.png", "_gtFine_labelTrainIds.png")}


def _one_split(root: Path, split: str, images: str, labels: str, image_end: str, label_end: str, separator: str):
    """The lines of one split; a label is found by its image's name with the ending changed."""
    lines, missing = [], []
    for image in sorted((root / images / split).rglob(f"*{image_end}")):
        below = image.relative_to(root / images).parent
        label = root / labels / below / (image.name[: -len(image_end)] + label_end)
        names = [image.relative_to(root).as_posix(), label.relative_to(root).as_posix()]
        clash = [name for name in names if separator in name]
        if clash:
            raise DataError(f"{clash[0]}: holds the separator {separator!r}; choose another with --separator")
        if label.is_file():
            lines.append(separator.join(names))
        elif split == "test":
            lines.append(names[0])
        else:
            missing.append(str(label))
    return lines, missing


def write_lists(
    root: str | Path,
    *,
    images: str,
    labels: str,
    image_end: str,
    label_end: str,
    separator: str = " ",
    splits: Sequence[str] = SPLITS,
) -> dict[str, int]:
    """Writes a list for each split that has images; returns their lengths.

    Args:
        root: the dataset; lists are written into it, with names relative to it.
        images, labels: folders below `root` that hold a folder per split.
        image_end, label_end: endings of file names, such as `.jpg` and `.png`.
        separator: between image and label.
        splits: folders below `images` and `labels`, and names of the lists; images of `test` need no labels.

    Raises:
        DataError: no images at all, labels that are missing, or file names that hold the separator.
        OutputError: a list of that name that we did not write, for instance one written by hand.
    """
    root = Path(root)
    if not (root / images).is_dir():
        raise DataError(f"{root / images}: no such folder of images")
    found, missing = {}, []
    for split in splits:
        lines, lost = _one_split(root, split, images, labels, image_end, label_end, separator)
        missing += lost
        if lines:
            found[split] = lines
    if missing:
        raise DataError(f"{len(missing)} labels are missing, first {missing[0]}; convert or remove the images first")
    if not found:
        raise DataError(f"{root / images}: no *{image_end} in {', '.join(splits)}")
    check_outputs((root / f"{split}.txt" for split in found), (), root=root)
    for split, lines in found.items():
        write_text(root / f"{split}.txt", "\n".join(lines) + "\n")
        logger.info(f"{root / f'{split}.txt'}: {len(lines)} lines")
    return {split: len(lines) for split, lines in found.items()}
