# SPDX-License-Identifier: Apache-2.0
"""PASCAL VOC 2012 and PASCAL Context, in the folder structure that PaddleSeg's tools create."""

from pathlib import Path

from paddle_dnl.data.base_dataset import SegmentationDataset, require_folder, require_mode
from paddle_dnl.data.images.image_files import in_any_case
from paddle_dnl.data.images.list_files import read_image_set
from paddle_dnl.data.images.reading import exceeds_byte
from paddle_dnl.errors import DataError
from paddle_dnl.registry import DATASETS

import numpy as np


def _pairs(names: list[str], images: Path, labels: Path) -> list[tuple[Path, Path]]:
    pairs = [(in_any_case(images / f"{name}.jpg"), in_any_case(labels / f"{name}.png")) for name in names]
    missing = [path for pair in pairs for path in pair if not path.is_file()]
    if missing:
        raise DataError(f"{len(missing)} files are missing, first {missing[0]}")
    return pairs


@DATASETS.add_component
class PascalVOC(SegmentationDataset):
    """PASCAL VOC 2012, 21 classes; `trainaug` adds the SBD annotations.

    Args:
        transforms: see `SegmentationDataset`.
        dataset_root: the `VOCdevkit` folder.
        mode: `train`, `trainval`, `trainaug` or `val`.
        edge: see `SegmentationDataset`.
    """

    NUM_CLASSES = 21
    IGNORE_INDEX = 255
    IMG_CHANNELS = 3

    def __init__(self, transforms, dataset_root=None, mode="train", edge=False):
        mode = require_mode(mode, ("train", "trainval", "trainaug", "val"), "PascalVOC")
        root = require_folder(dataset_root, "PascalVOC", "give the VOCdevkit folder as dataset_root") / "VOC2012"
        sets = root / "ImageSets" / "Segmentation"
        first = "train" if mode == "trainaug" else mode
        pairs = _pairs(
            read_image_set(sets / f"{first}.txt", "is this a VOCdevkit folder?"),
            root / "JPEGImages",
            root / "SegmentationClass",
        )
        if mode == "trainaug":
            added = read_image_set(
                sets / "aug.txt",
                f"make it with `paddle-dnl data voc-augment --voc_path {root.parent} --sbd_path SBD`",
            )
            pairs += _pairs(added, root / "JPEGImages", root / "SegmentationClassAug")
        super().__init__(pairs, transforms, mode, self.NUM_CLASSES, self.IGNORE_INDEX, edge=edge)
        self.dataset_root = dataset_root


class _Context(SegmentationDataset):
    """PASCAL Context on the VOC 2010 images, with labels as `tools/data/convert_pascal_context.py` writes them."""

    IGNORE_INDEX = 255
    IMG_CHANNELS = 3

    def __init__(self, transforms=None, dataset_root=None, mode="train", edge=False):
        name = type(self).__name__
        mode = require_mode(mode, ("train", "trainval", "val"), name)
        root = require_folder(dataset_root, name, "give the VOC2010 folder as dataset_root")
        names = read_image_set(
            root / "ImageSets" / "Segmentation" / f"{mode}_context.txt",
            f"make it with `paddle-dnl data convert-pascal-context --voc_path {root}`",
        )
        pairs = _pairs(names, root / "JPEGImages", root / "Context")
        super().__init__(pairs, transforms, mode, self.NUM_CLASSES, self.IGNORE_INDEX, edge=edge)
        self.dataset_root = dataset_root


@DATASETS.add_component
class PascalContext(_Context):
    """PASCAL Context with background as class 0, 60 classes.

    Args:
        transforms: see `SegmentationDataset`.
        dataset_root: the `VOC2010` folder.
        mode: `train`, `trainval` or `val`.
        edge: see `SegmentationDataset`.
    """

    NUM_CLASSES = 60


@DATASETS.add_component
class PascalContext59(_Context):
    """PASCAL Context without background, 59 classes, as the DNL authors evaluate it; arguments: see `PascalContext`."""

    NUM_CLASSES = 59

    @staticmethod
    def map_label(label: np.ndarray) -> np.ndarray:
        """Maps n to n - 1, 0 to 255 (ignored), and 255 to itself.

        A label with numbers above 255 is returned unchanged, so that the error message shows the stored numbers.
        """
        if exceeds_byte(label):
            return label
        label = label.astype(np.uint8)
        return np.where(label == 255, np.uint8(255), label - np.uint8(1))
