# SPDX-License-Identifier: Apache-2.0
"""Datasets with PaddleSeg's names and arguments: list files, also of masks, Cityscapes, ADE20K.

PaddleSeg's datasets pair images and labels by their position in two sorted folder listings, so that one missing file shifts
all later pairs, or download data without being asked. These pair by name, refuse missing files and download nothing.
"""

from pathlib import Path

from paddle_dnl.data.base_dataset import SegmentationDataset, require_folder, require_mode, size_text
from paddle_dnl.data.checking.counts import SampleCounts
from paddle_dnl.data.classes import named_classes
from paddle_dnl.data.file_list import FileList
from paddle_dnl.data.images.image_files import in_any_case, walk_files
from paddle_dnl.data.images.list_files import pairs_of
from paddle_dnl.data.images.reading import exceeds_byte, read_bytes, read_label
from paddle_dnl.data.masks import split_masks
from paddle_dnl.data.transforms.multilabel import AddMultiLabelAuxiliaryCategory
from paddle_dnl.errors import DataError
from paddle_dnl.log import logger
from paddle_dnl.registry import DATASETS

import numpy as np

_SET_ROOT = "set train_dataset.dataset_root and val_dataset.dataset_root with --opts"


@DATASETS.add_component
class Dataset(SegmentationDataset):
    """Images and labels named by list files, with PaddleSeg's arguments.

    Args:
        mode: `train`, `val` or `test`; selects the list file.
        dataset_root: folder to which the paths in the list files are relative.
        transforms: see `SegmentationDataset`.
        num_classes: number of classes.
        img_channels: number of channels: 3, 1, or any number for .npy, TIFF and PNG files.
        train_path, val_path, test_path: list file of the mode: an image and its label per line.
        separator: between image and label; see `paddle_dnl.data.images.list_files`.
        ignore_index: label of ignored pixels; a `classes.txt` may set another default.
        edge: see `SegmentationDataset`.
        class_names: one name per class; by default from a `classes.txt` beside the list file or in `dataset_root`.
        class_colors: [red, green, blue] of each class.
        value_range: [lo, hi], stored values that become 0 and 255, without clipping. Required for floats, and for 16-bit files
            that use fewer bits. See `paddle_dnl.data.images.bands.scale`.
    """

    def __init__(
        self,
        mode,
        dataset_root,
        transforms,
        num_classes,
        img_channels=3,
        train_path=None,
        val_path=None,
        test_path=None,
        separator=" ",
        ignore_index=255,
        edge=False,
        class_names=None,
        class_colors=None,
        value_range=None,
    ):
        mode = require_mode(mode, ("train", "val", "test"), "Dataset")
        root = require_folder(dataset_root, "Dataset", _SET_ROOT)
        self.list_path = path = {"train": train_path, "val": val_path, "test": test_path}[mode]
        if path is None:
            raise DataError(f"Dataset: mode {mode} needs {mode}_path, the list of its files")
        if num_classes is None or num_classes < 1:
            raise DataError(f"Dataset: num_classes must be at least 1, got {num_classes}")
        if type(img_channels) is not int or img_channels < 1:
            raise DataError(f"Dataset: img_channels must be a whole number from 1, got {img_channels!r}")
        pairs = FileList(pairs_of(path, root, separator, labelled=mode != "test"))
        absolute = next((file for file in pairs[-1] if file is not None and not Path(file).is_relative_to(root)), None)
        if absolute is not None:
            logger.info(
                f"{path}: holds absolute paths such as {absolute}; they are read as they are, without dataset_root"
            )
        super().__init__(pairs, transforms, mode, num_classes, ignore_index, img_channels, edge, value_range)
        self.dataset_root = dataset_root
        if class_names:
            self.classes = named_classes(class_names, class_colors)


@DATASETS.add_component
class MultilabelDataset(Dataset):
    """Images and masks named by list files; replaces `Dataset` with `--use_multilabel`.

    The `label` of a sample is `[K, H, W]`, in validation at the original size. Arguments are those of `Dataset`.
    """

    multilabel = True

    @property
    def stored_masks(self) -> int:
        """Number of masks in a label picture."""
        added = sum(isinstance(step, AddMultiLabelAuxiliaryCategory) for step in self.transforms.transforms)
        return self.num_classes - added

    def read_masks(self, path: str, image: np.ndarray, image_path: str) -> np.ndarray:
        """The masks `[H, W, K]` in a label file.

        Raises:
            DataError: the file is unreadable, or does not contain one mask per class.
        """
        label = read_label(path)
        masks = split_masks(label, *image.shape[:2])
        if masks is None or masks.shape[2] != self.stored_masks:
            raise DataError(
                f"{path}: is {size_text(label)}, its image {image_path} is {size_text(image)}; with --use_multilabel it must "
                f"hold {self.stored_masks} masks of that size side by side (num_classes)"
            )
        return masks

    def _with_first(self, masks: np.ndarray) -> np.ndarray:
        """The masks `[H, W, K]`, with the background mask first if a transform adds one."""
        none = (masks == 0).all(2, keepdims=True).astype(masks.dtype)
        return np.concatenate([none, masks], axis=2) if masks.shape[2] < self.num_classes else masks

    def stored_label(self, index: int) -> np.ndarray | None:
        """The masks `[K, H, W]` of an image before any transform; None for an image without a label."""
        image_path, path = self.file_list[index]
        if path is None:
            return None
        masks = self.read_masks(path, self.image_format.read(image_path), image_path)
        return self._with_first(masks).transpose(2, 0, 1)

    def __getitem__(self, index):
        image_path, label_path = self.file_list[index]
        data = {"img": self.image_format.read(image_path), "trans_info": [], "gt_fields": []}
        if label_path is None:
            return self.transforms(data)
        data["label"] = np.ascontiguousarray(self.read_masks(label_path, data["img"], image_path))
        if self.mode != "val":
            data["gt_fields"].append("label")
        data = self.transforms(data)
        masks = np.atleast_3d(data["label"])  # OpenCV leaves out a last axis of one
        data["label"] = np.ascontiguousarray(masks.transpose(2, 0, 1))
        return data

    def count(self, image: np.ndarray, image_path: str, label_path: str) -> SampleCounts:
        """See `SegmentationDataset.count`; the pixels of a class are those of its mask."""
        masks = self.read_masks(label_path, image, image_path)
        numbers = np.unique(masks)
        bad = [str(n) for n in numbers if n not in (0, 1, self.ignore_index)]
        if bad:
            raise DataError(
                f"{label_path}: holds {', '.join(bad[:5])}; masks must be 0 and 1, or {self.ignore_index} for ignored"
            )
        pixels = (self._with_first(masks) == 1).sum((0, 1), dtype=np.int64)
        ignored = int((masks == self.ignore_index).sum())
        return SampleCounts.of_pixels(read_bytes(image_path), image, numbers, pixels, ignored)


@DATASETS.add_component
class Cityscapes(SegmentationDataset):
    """Cityscapes in its original folder structure, with the labels of the 19 training classes.

    Args:
        transforms: see `SegmentationDataset`.
        dataset_root: folder with `leftImg8bit` and `gtFine`.
        mode: `train`, `val` or `test`.
        edge: see `SegmentationDataset`.
    """

    NUM_CLASSES = 19
    IGNORE_INDEX = 255
    IMG_CHANNELS = 3
    IMAGE_END = "_leftImg8bit.png"

    def __init__(self, transforms, dataset_root, mode="train", edge=False):
        mode = require_mode(mode, ("train", "val", "test"), "Cityscapes")
        root = require_folder(dataset_root, "Cityscapes", _SET_ROOT)
        images = list(walk_files(root / "leftImg8bit" / mode, (self.IMAGE_END.lower(),), depth=1))
        if not images:
            raise DataError(f"Cityscapes: no images {root / 'leftImg8bit' / mode}/CITY/*_leftImg8bit.png")
        pairs = []
        for image in images:
            label = image.name[: -len(self.IMAGE_END)] + "_gtFine_labelTrainIds.png"
            pairs.append((image, in_any_case(root / "gtFine" / mode / image.parent.name / label)))
        missing = [label for _, label in pairs if not label.is_file()]
        if missing:
            raise DataError(
                f"Cityscapes: {len(missing)} of {len(pairs)} {mode} labels are missing, first {missing[0]}; make them with "
                f"`paddle-dnl data convert-cityscapes --cityscapes_path {root}`"
            )
        super().__init__(pairs, transforms, mode, self.NUM_CLASSES, self.IGNORE_INDEX, edge=edge)
        self.dataset_root = dataset_root


@DATASETS.add_component
class ADE20K(SegmentationDataset):
    """ADE20K (scene parsing challenge), 150 classes; label 0 of the files, "other", is ignored.

    Args:
        transforms: see `SegmentationDataset`.
        dataset_root: folder with `images` and `annotations`, each with `training` and `validation`.
        mode: `train` or `val`.
        edge: see `SegmentationDataset`.
    """

    NUM_CLASSES = 150
    IGNORE_INDEX = 255
    IMG_CHANNELS = 3

    def __init__(self, transforms, dataset_root=None, mode="train", edge=False):
        mode = require_mode(mode, ("train", "val"), "ADE20K")
        root = require_folder(dataset_root, "ADE20K", _SET_ROOT)
        part = {"train": "training", "val": "validation"}[mode]
        images = list(walk_files(root / "images" / part, (".jpg", ".jpeg"), depth=0))
        if not images:
            raise DataError(f"ADE20K: no images {root / 'images' / part}/*.jpg")
        pairs = [(image, in_any_case(root / "annotations" / part / f"{image.stem}.png")) for image in images]
        missing = [label for _, label in pairs if not label.is_file()]
        if missing:
            raise DataError(f"ADE20K: {len(missing)} of {len(pairs)} {mode} labels are missing, first {missing[0]}")
        super().__init__(pairs, transforms, mode, self.NUM_CLASSES, self.IGNORE_INDEX, edge=edge)
        self.dataset_root = dataset_root

    @staticmethod
    def map_label(label: np.ndarray) -> np.ndarray:
        """Maps n to n - 1, and 0 to 255 (ignored), by the overflow of uint8.

        A label with numbers above 255 is returned unchanged, so that the error message shows the stored numbers.
        """
        return label if exceeds_byte(label) else label.astype(np.uint8) - np.uint8(1)
