# SPDX-License-Identifier: Apache-2.0
"""Multi-label segmentation: one binary mask per class, in PaddleSeg's format for `--use_multilabel`.

A label picture contains the K masks of an image side by side, `[H, K * W]`, or one below the other, `[K * H, W]`. A mask is 1
where the class is present, 0 where it is not, and `ignore_index` where that is unknown.
"""

from paddle_dnl.data.base_dataset import size_text
from paddle_dnl.data.datasets import Dataset
from paddle_dnl.data.images.reading import read_bytes, read_label
from paddle_dnl.data.statistics import SampleCounts
from paddle_dnl.data.transforms.multilabel import AddMultiLabelAuxiliaryCategory
from paddle_dnl.errors import DataError
from paddle_dnl.registry import DATASETS

import numpy as np


def split_masks(label: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """The masks `[H, W, K]` in a label picture, for an image of this size; None if the picture's size is no multiple of it."""
    rows, columns = label.shape
    if rows == height and columns % width == 0:
        return label.reshape(height, -1, width).transpose(0, 2, 1)
    if columns == width and rows % height == 0:
        return label.reshape(-1, height, width).transpose(1, 2, 0)
    return None


def join_masks(masks: np.ndarray) -> np.ndarray:
    """Concatenates masks `[K, H, W]` side by side, `[H, K * W]`."""
    return np.concatenate(list(masks), axis=1)


def summed_numbers(masks: np.ndarray) -> np.ndarray:
    """One number per pixel, `[H, W]`: the sum of k + 1 over its classes k, or 0 without a class.

    PaddleSeg draws this number. It is ambiguous where classes overlap.

    Args:
        masks: `[K, H, W]`, 0 or 1.
    """
    return np.tensordot(np.arange(1, len(masks) + 1), masks.astype(np.int64), 1)


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
