# SPDX-License-Identifier: Apache-2.0
"""The datasets of a configuration or of a data folder, for `data describe` and `data preview`."""

from itertools import chain
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.data.classes import FILE_NAME, ClassInfo, class_info, count_classes, read_classes
from paddle_dnl.data.images.list_files import read_list
from paddle_dnl.data.images.reading import read_label
from paddle_dnl.data.prepare.import_note import require_complete
from paddle_dnl.errors import UsageError

SPLITS = ("train", "val", "test", "all")


def of_folder(root: Path, multilabel: bool = False) -> dict[str, object]:
    """The lists `train.txt`, `val.txt` and `test.txt` of a folder as datasets; `all.txt` if there is none of them.

    The classes are those of `classes.txt`. Without it their number follows from the largest number in the labels.

    Args:
        root: the folder.
        multilabel: label pictures contain masks, see `MultilabelDataset`.

    Raises:
        UsageError: there are no lists, or masks but no classes.txt.
        DataError: a list or label cannot be read, or an import into the folder is incomplete.
    """
    require_complete(root)
    lists = {split: root / f"{split}.txt" for split in SPLITS if (root / f"{split}.txt").is_file()}
    if len(lists) > 1:
        lists.pop("all", None)
    if not lists:
        raise UsageError(f"{root}: no train.txt, val.txt or all.txt there; `paddle-dnl data split {root}` writes them")
    if (root / FILE_NAME).is_file():
        classes: ClassInfo = read_classes(root / FILE_NAME)
    elif multilabel:
        raise UsageError(f"{root}: with --use_multilabel a {FILE_NAME} must say which masks a label picture holds")
    else:
        pairs = chain.from_iterable(read_list(path, root, "\t", labelled=False) for path in lists.values())
        classes = class_info("Dataset", count_classes(read_label(label) for _, label in pairs if label is not None))
    made = {}
    for split, path in lists.items():
        cfg = {
            "type": "MultilabelDataset" if multilabel else "Dataset", "mode": "val", "dataset_root": str(root),
            "transforms": [], "num_classes": len(classes.names), "val_path": str(path), "separator": "\t",
            "ignore_index": 255 if multilabel else classes.ignored,
        }  # fmt: skip
        dataset = registry.build(cfg, "dataset", str(path))
        dataset.classes = classes
        made[split] = dataset
    return made


def of_config(config) -> dict[str, object]:
    """The `train` and `val` datasets of a `Config`."""
    made = {}
    for section, split in (("train_dataset", "train"), ("val_dataset", "val")):
        cfg = config.dic.get(section)
        if cfg:
            made[split] = registry.build(cfg, "dataset", section)
    return made
