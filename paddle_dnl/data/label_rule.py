# SPDX-License-Identifier: Apache-2.0
"""The mapping from numbers in label files to classes, in the form in which an exported folder stores it."""

import inspect

from paddle_dnl import registry
from paddle_dnl.data.base_dataset import SegmentationDataset
from paddle_dnl.errors import PaddleDnlError
from paddle_dnl.log import logger

import numpy as np


def label_rule(cfg: dict, where: str) -> tuple[int, list[int] | None]:
    """The ignored label of a dataset, and the class of each number 0 to 255 in its files.

    Args:
        cfg: the dataset's configuration. The data need not exist unless `map_label` is not a static method.
        where: its key in the configuration, for log lines.

    Returns:
        `ignore_index`, and a list of 256 class numbers, or None if the files contain the class numbers themselves.
    """
    cls = registry.find(cfg["type"], "dataset", where)
    default = getattr(inspect.signature(cls).parameters.get("ignore_index"), "default", 255)
    ignored = cfg.get("ignore_index", getattr(cls, "IGNORE_INDEX", default))
    if not issubclass(cls, SegmentationDataset) or cls.map_label is SegmentationDataset.map_label:
        return ignored, None
    mapped_by = cls
    if not isinstance(inspect.getattr_static(cls, "map_label"), staticmethod):
        try:
            mapped_by = registry.build(cfg, "dataset", where)
        except PaddleDnlError as error:
            logger.warning(
                f"{where}: its rule for labels is not stored with the export, as it cannot be built: {error}"
            )
            return ignored, None
    table = np.asarray(mapped_by.map_label(np.arange(256, dtype=np.uint8)[None]))[0]
    return ignored, table.astype(int).tolist()
