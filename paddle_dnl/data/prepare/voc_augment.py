# SPDX-License-Identifier: Apache-2.0
"""SBD annotations (Hariharan et al., ICCV 2011) as additional training labels of PASCAL VOC 2012."""

from pathlib import Path

from paddle_dnl.data.images.list_files import read_image_set
from paddle_dnl.data.prepare.label_files import is_done, write_label, write_names
from paddle_dnl.errors import DataError
from paddle_dnl.files.outputs import check_outputs
from paddle_dnl.log import logger, progress
from paddle_dnl.optional import not_installed

import numpy as np

_CLASSES = 21


def _loadmat():
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise not_installed("SBD's .mat files", error, "scipy") from error
    return loadmat


def read_sbd_label(path: Path) -> np.ndarray:
    """Reads the class numbers `[H, W]`, uint8, 0 to 20 and 255, of a file in SBD's `cls` folder.

    Raises:
        DataError: the file is unreadable, has no `GTcls.Segmentation`, or contains other values.
        UsageError: scipy is not installed.
    """
    loadmat = _loadmat()
    if not path.is_file():
        raise DataError(f"{path}: no such file, though the image sets of SBD list it")
    try:
        content = loadmat(str(path), squeeze_me=True, struct_as_record=False)
    except Exception as error:  # scipy raises many kinds of exceptions for damaged files
        raise DataError(f"{path}: cannot be read as a .mat file ({type(error).__name__}: {error})") from error
    label = getattr(content.get("GTcls"), "Segmentation", None)
    if label is None or np.ndim(label) != 2:
        raise DataError(f"{path}: holds no picture GTcls.Segmentation; is this SBD's folder cls?")
    label = np.asarray(label)
    wrong = sorted(set(np.unique(label).tolist()) - {*range(_CLASSES), 255})
    if wrong:
        raise DataError(f"{path}: class numbers {wrong[:5]}; expected 0 to {_CLASSES - 1} or 255")
    return label.astype(np.uint8)


def augment(sbd_path: str | Path, voc_path: str | Path, force: bool = False) -> None:
    """Writes `VOC2012/SegmentationClassAug/*.png` and `VOC2012/ImageSets/Segmentation/aug.txt`.

    `aug.txt` contains the names of SBD's train and val sets that are neither in train nor in val of VOC 2012, sorted. It is
    written last: if it exists, all its labels do.

    Args:
        sbd_path: SBD's `benchmark_RELEASE` folder, or its `dataset`.
        voc_path: the `VOCdevkit` folder.
        force: convert also files whose label picture is up to date.

    Raises:
        DataError: files are missing, unreadable or invalid, or there is nothing to add.
        UsageError: scipy is not installed.
    """
    _loadmat()
    root, voc = Path(sbd_path), Path(voc_path) / "VOC2012"
    # In SBD's archive the folder with `cls`, `train.txt` and `val.txt` is benchmark_RELEASE/dataset.
    places = (root, root / "dataset", root / "benchmark_RELEASE" / "dataset")
    sbd = next((place for place in places if (place / "cls").is_dir()), None)
    if sbd is None:
        raise DataError(f"{root}: no folder cls; give SBD's benchmark_RELEASE folder")
    sets = voc / "ImageSets" / "Segmentation"
    known = {name for split in ("train", "val") for name in read_image_set(sets / f"{split}.txt")}
    offered = {name for split in ("train", "val") for name in read_image_set(sbd / f"{split}.txt")}
    names = sorted(offered - known)
    if not names:
        raise DataError(f"{sbd}: all its images are in {sets}/train.txt or val.txt; nothing to add")
    check_outputs([sets / "aug.txt"], [], root=voc)
    for name in progress(names, "convert", len(names)):
        source, target = sbd / "cls" / f"{name}.mat", voc / "SegmentationClassAug" / f"{name}.png"
        if force or not source.is_file() or not is_done(source, target):
            write_label(target, read_sbd_label(source), replace=force)
    write_names(sets / "aug.txt", names)
    logger.info(f"{sets / 'aug.txt'}: {len(names)} images")
