# SPDX-License-Identifier: Apache-2.0
"""Preview of the training input: pictures before and after the transforms, with their labels, as one HTML page."""

import random
from pathlib import Path

from paddle_dnl.data.classes import IGNORED_COLOR, classes_of
from paddle_dnl.data.file_list import even_indices, files_of
from paddle_dnl.data.overlay import displayed, encode_jpeg, overlay_label
from paddle_dnl.data.page import Section, write_page
from paddle_dnl.data.prepare.describe import labelled_jpeg
from paddle_dnl.errors import DataError
from paddle_dnl.files.outputs import check_outputs

import cv2
import numpy as np

_WIDTH = 300


def visible(image: np.ndarray, steps: list) -> np.ndarray:
    """The input of the network as a picture for display, BGR uint8 `[H, W, 3]`, with the normalisation reversed.

    Args:
        image: input of the network, float32 `[C, H, W]`.
        steps: its transforms, of which `Normalize` and `SubtractMeanBGR` are reversed.
    """
    image = image.transpose(1, 2, 0).astype(np.float64)
    is_bgr = False
    for step in reversed(steps):
        name = type(step).__name__
        if name == "Normalize":
            image = (image * np.asarray(step.std).reshape(1, 1, -1) + np.asarray(step.mean).reshape(1, 1, -1)) * 255
        elif name == "SubtractMeanBGR":
            image, is_bgr = image + np.asarray(step.mean).reshape(1, 1, -1), True
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return displayed(image[..., ::-1] if image.shape[2] == 3 and not is_bgr else image)


def _panel(dataset, index: int, colors) -> tuple[np.ndarray, str]:
    """One transformed sample with its label overlaid, `_WIDTH` pixels wide, and the size of the sample as text."""
    sample = dataset[index]
    image = visible(sample["img"], getattr(dataset.transforms, "transforms", []))
    height, width = image.shape[:2]
    label = np.asarray(sample["label"]) if "label" in sample else None
    if label is not None and not getattr(dataset, "multilabel", False):
        label = np.squeeze(label)
    if label is not None and label.shape[-2:] == (height, width):
        mixed = overlay_label(image, label, colors, 0.45)
        gap = np.full((max(1, round(4 * width / _WIDTH)), width, 3), 255, np.uint8)
        image = np.concatenate([image, gap, mixed], axis=0)
    size = (_WIDTH, max(1, round(image.shape[0] * _WIDTH / width)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), f"{width}x{height}"


def write_preview(
    datasets: dict[str, object], path: str | Path, title: str, samples: int, times: int, seed: int
) -> None:
    """Writes the page.

    Args:
        datasets: split -> dataset with its transforms.
        path: the HTML file.
        title: title of the page.
        samples: number of pictures per split, evenly spaced.
        times: number of augmented versions of each training picture.
        seed: seed of the augmentation.

    Raises:
        OutputError: the page would overwrite a file of the dataset, or one that this package did not write.
        DataError: a sample is unreadable, or a transform fails on it.
    """
    check_outputs([path], files_of(datasets.values()))
    sections = []
    for split, dataset in datasets.items():
        classes = classes_of(dataset)
        count = times if split == "train" else 1
        pictures = []
        for index in even_indices(len(dataset.file_list), samples):
            image = dataset.file_list[index][0]
            try:
                pictures.append((labelled_jpeg(dataset, index, 450), f"{Path(image).name} as it is, and its label"))
                panels = []
                for version in range(count):
                    random.seed(seed + version)
                    np.random.seed((seed + version) % 2**32)
                    panels.append(_panel(dataset, index, classes.colors))
            except DataError:
                raise
            except Exception as error:
                raise DataError(f"{image}: a transform failed: {type(error).__name__}: {error}") from error
            sizes = ", ".join(sorted({size for _, size in panels}))
            # Side by side with a gap, white below the shorter ones.
            height = max(panel.shape[0] for panel, _ in panels)
            padded = [
                cv2.copyMakeBorder(panel, 0, height - panel.shape[0], 0, 6, cv2.BORDER_CONSTANT, value=(255, 255, 255))
                for panel, _ in panels
            ]
            row = encode_jpeg(np.concatenate(padded, axis=1))
            pictures.append((row, f"as the network sees it ({sizes}), with the label below"))
        legend = [*zip(classes.names, classes.colors, strict=True), ("ignored", IGNORED_COLOR)]
        steps = [[type(step).__name__] for step in getattr(dataset.transforms, "transforms", [])]
        note = "Colours are those after the transforms, with the normalisation undone."
        sections.append(
            Section(f"{split}: {len(dataset.file_list)} images", pictures=pictures, legend=legend, note=note)
        )
        if steps:
            sections.append(Section(f"Transforms of {split}", table=[["in this order"], *steps]))
    write_page(path, title, f"{samples} pictures of each split, seed {seed}", sections)
