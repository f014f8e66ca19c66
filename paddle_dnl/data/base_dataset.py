# SPDX-License-Identifier: Apache-2.0
"""Base class of the datasets: reads pairs of image and label files and transforms them."""

from collections.abc import Sequence
from pathlib import Path

from paddle_dnl.data.checking.counts import SampleCounts
from paddle_dnl.data.file_list import FileList
from paddle_dnl.data.images.image_format import ImageFormat
from paddle_dnl.data.images.reading import exceeds_byte, read_bytes, read_label
from paddle_dnl.data.transforms.compose import Compose
from paddle_dnl.data.transforms.edges import binary_edges
from paddle_dnl.errors import DataError

import numpy as np
import paddle


class SegmentationDataset(paddle.io.Dataset):
    """Samples of image and label, with PaddleSeg's fields.

    A sample is a dict with `img` float32 `[C, H, W]`; `label` `[H, W]` in training and `[1, h, w]` (original size) in
    validation; `trans_info`, the sizes before each resize and padding, to reverse them; in training, if `edge` is set,
    `edge` `[1, H, W]`.

    Args:
        file_list: pairs (image, label or None).
        transforms: list of transforms, applied in this order.
        mode: `val`: labels are not transformed; other modes transform them with the image.
        num_classes: labels are in [0, num_classes) or `ignore_index`.
        ignore_index: label of ignored pixels.
        img_channels: number of channels of the images.
        value_range: stored values that become 0 and 255, see `paddle_dnl.data.images.bands.scale`.
        edge: in training, also return a mask of the class boundaries, for losses that use it.

    Attributes:
        classes: names and colours; None for datasets whose type determines them.
        statistics: result of `paddle_dnl.data.checking.check.check_dataset`; None before it ran.
        multilabel: whether a pixel can have several classes, see `paddle_dnl.data.masks`.
    """

    classes = None
    statistics = None
    multilabel = False

    def __init__(
        self,
        file_list: Sequence,
        transforms: list,
        mode: str,
        num_classes: int,
        ignore_index: int = 255,
        img_channels: int = 3,
        edge: bool = False,
        value_range: Sequence[float] | None = None,
    ):
        super().__init__()
        self.file_list = file_list if isinstance(file_list, FileList) else FileList(file_list)
        self.transforms = Compose(list(transforms or []), img_channels=img_channels)
        self.mode = mode
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.img_channels, self.value_range = img_channels, value_range
        self.image_format = ImageFormat.of(self)
        self.edge = edge

    def __len__(self):
        return len(self.file_list)

    @staticmethod
    def map_label(label: np.ndarray) -> np.ndarray:
        """Maps the class numbers in the label files to the model's. Datasets whose files use other numbers override it.

        A static method if the mapping is the same for all datasets of the class; an export can then store it.
        """
        return label

    def read_label(self, path: str) -> np.ndarray:
        """The label `[H, W]` of a file, in the model's class numbers.

        Raises:
            DataError: the file is unreadable, or contains a number above 255 that is no class. Smaller numbers are not
                checked here, because checking every pixel of each sample would be too slow; the check before training and
                the metrics find them.
        """
        label = self.map_label(read_label(path))
        problem = (
            label_problem(path, label, label, self.num_classes, self.ignore_index) if exceeds_byte(label) else None
        )
        if problem:
            raise DataError(problem)
        return label

    def count(self, image: np.ndarray, image_path: str, label_path: str) -> SampleCounts:
        """Checks and counts one sample, for the check before training. Datasets with other label files override it.

        Args:
            image: `[H, W, C]`, as read.
            image_path, label_path: its file and that of its label.

        Raises:
            DataError: the label is unreadable, of another size than the image, or contains a number that is no class.
        """
        stored = read_label(label_path)
        label = self.map_label(stored)
        if label.shape != image.shape[:2]:
            raise DataError(f"{label_path}: is {size_text(label)}, its image {image_path} is {size_text(image)}")
        problem = label_problem(label_path, stored, label, self.num_classes, self.ignore_index)
        if problem:
            raise DataError(problem)
        return SampleCounts.of(read_bytes(image_path), image, stored, label, self.num_classes, self.ignore_index)

    def stored_label(self, index: int) -> np.ndarray | None:
        """The label of an image before any transform, `[H, W]`, or masks `[K, H, W]`; None for an image without a label.

        Raises:
            DataError: see `read_label`.
        """
        path = self.file_list[index][1]
        return None if path is None else self.read_label(path)

    def __getitem__(self, index):
        image_path, label_path = self.file_list[index]
        data = {"img": self.image_format.read(image_path), "trans_info": [], "gt_fields": []}
        if label_path is not None:
            data["label"] = self.read_label(label_path)
            if data["label"].shape != data["img"].shape[:2]:
                raise DataError(
                    f"{label_path}: is {size_text(data['label'])}, its image {image_path} is {size_text(data['img'])}"
                )
        if self.mode == "val":
            data = self.transforms(data)
            if label_path is not None:
                data["label"] = data["label"][np.newaxis]
            return data
        if label_path is not None:
            data["gt_fields"].append("label")
        data = self.transforms(data)
        if self.edge and label_path is not None:
            data["edge"] = binary_edges(data["label"], radius=2, num_classes=self.num_classes)
        return data


def label_problem(path: str, stored: np.ndarray, label: np.ndarray, num_classes: int, ignore_index: int) -> str | None:
    """An error message if a label contains numbers that are neither a class nor ignored, else None.

    Args:
        path: the label file.
        stored: the numbers in the file.
        label: the same after `map_label`.
        num_classes, ignore_index: `label` may contain 0 to num_classes - 1 and ignore_index.
    """
    values = np.unique(label)
    bad = values[(values != ignore_index) & ((values < 0) | (values >= num_classes))]
    if not bad.size:
        return None
    there = np.isin(label, bad)
    held = np.unique(stored[there])
    meaning = "" if np.array_equal(held, bad) else f", read as {', '.join(map(str, bad[:5]))}"
    return (
        f"{path}: holds {', '.join(map(str, held[:5]))} ({int(there.sum())} pixels){meaning}; "
        f"labels must be 0 to {num_classes - 1}, or {ignore_index} for ignored"
    )


def size_text(array: np.ndarray) -> str:
    """`width x height` of an image for messages."""
    return f"{array.shape[1]}x{array.shape[0]}"


def require_mode(mode: str, allowed: Sequence[str], dataset: str) -> str:
    """`mode` in lower case.

    Raises:
        DataError: it is not among `allowed`.
    """
    mode = str(mode).lower()
    if mode not in allowed:
        raise DataError(f"{dataset}: mode must be one of {', '.join(allowed)}; got {mode!r}")
    return mode


def require_folder(path, dataset: str, advice: str) -> Path:
    """`path` as a folder that exists.

    Raises:
        DataError: it does not; `advice` says what to do.
    """
    if path is None or not Path(path).is_dir():
        raise DataError(f"{dataset}: dataset_root {path} is not a folder; {advice}")
    return Path(path)
