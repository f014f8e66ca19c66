# SPDX-License-Identifier: Apache-2.0
"""Description of a dataset: classes, sizes, duplicates, suggestions; as text, JSON and an HTML page."""

import json
import math
from collections import Counter
from pathlib import Path

from paddle_dnl.data.checking.check import check_dataset
from paddle_dnl.data.classes import IGNORED_COLOR, classes_of
from paddle_dnl.data.file_list import even_indices
from paddle_dnl.data.images.image_format import ImageFormat
from paddle_dnl.data.overlay import displayed, encode_jpeg, overlay_label
from paddle_dnl.data.page import Section, write_page
from paddle_dnl.data.statistics import class_weights, shared_images, suggest_crop
from paddle_dnl.errors import DataError
from paddle_dnl.files.atomic import write_bytes
from paddle_dnl.log import logger

import cv2
import numpy as np
from PIL import Image

NAMES = ("describe.json", "describe.html")
_SAMPLE_WIDTH = 480
_LOWEST_SHARE = 1e-5  # start of the logarithmic scale of the bars


def _channels(dataset, split: str) -> dict[str, int]:
    """Pillow's mode (`RGB`, `L`, `I;16`, ...) -> number of image files; warns of pictures with 8 bits beside others."""
    modes: Counter = Counter()
    first: dict[bool, str] = {}
    for image, _ in dataset.file_list:
        try:
            with Image.open(image) as picture:
                mode = picture.mode
        except Exception:  # a format that only OpenCV reads
            modes["other"] += 1
            continue
        modes[mode] += 1
        first.setdefault(mode.startswith(("I", "F")), image)
    if len(first) == 2:
        logger.warning(
            f"{split}: pictures of different depths: {first[False]} has 8 bits, {first[True]} more. One scale (value_range) "
            "holds for all pictures of a dataset: convert them to one depth"
        )
    return dict(modes.most_common())


def describe(datasets: dict[str, object], num_workers: int = 0, skip_bad: bool = False) -> dict:
    """Reads and counts the datasets. Returns the content of the page and of the table as values that JSON can store.

    Args:
        datasets: split -> a `SegmentationDataset`.
        num_workers: number of worker processes.
        skip_bad: skip unusable samples, with a warning for each.

    Raises:
        DataError: a sample is unusable, or a dataset is of a foreign type, whose labels cannot be read.
    """
    for name, dataset in datasets.items():
        check_dataset(dataset, name, num_workers=num_workers, skip_bad=skip_bad)
        if dataset.statistics is None:
            raise DataError(
                f"{name}: {type(dataset).__name__} is not one of this package's datasets, so it cannot be counted"
            )
    first = next(iter(datasets.values()))
    names, statistics = classes_of(first).names, {name: d.statistics for name, d in datasets.items()}
    training = statistics.get("train") or next(iter(statistics.values()))
    # Pictures that occur twice, within a split or in two splits.
    duplicates, splits = [], list(datasets)
    for number, split in enumerate(splits):
        files, seen = datasets[split].file_list, {}
        for (image, _), digest in zip(files, datasets[split].statistics.digests.tolist(), strict=False):
            if digest in seen and seen[digest] != image:
                duplicates.append(f"{split}: {image} is the same picture as {seen[digest]}")
            seen.setdefault(digest, image)
        for other in splits[:number]:
            shared = shared_images(datasets[other].statistics, datasets[split].statistics)
            duplicates += [f"{split}: {files[place][0]} is in {other} too" for place in shared]
    return {
        "classes": [
            {
                "name": name,
                "pixels": {split: s.pixels[i] for split, s in statistics.items()},
                "share": {split: float(s.shares()[i]) for split, s in statistics.items()},
                "images": {split: s.images_with[i] for split, s in statistics.items()},
            }
            for i, name in enumerate(names)
        ],
        "splits": {
            split: {
                "images": s.images,
                "ignored_share": s.ignored_share,
                "absent": [names[i] for i in s.absent()],
                "rare": [names[i] for i in s.rare()],
                "sizes": [{"width": w, "height": h, "images": n} for (w, h), n in s.sizes.items()],
                "channels": _channels(datasets[split], split),
            }
            for split, s in statistics.items()
        },
        "duplicates": duplicates,
        "multilabel": training.multilabel,
        # The formula assumes one class per pixel.
        "suggested_class_weights": None if training.multilabel else class_weights(training),
        "suggested_crop_size": suggest_crop(training.sizes),
    }


def class_table(found: dict) -> list[list[str]]:
    """Share of the pixels (see `DatasetStatistics.shares`) and images per class and split, as rows with a header."""
    splits = list(found["splits"])
    lines = [["class", *(f"{split} {what}" for split in splits for what in ("pixels", "images"))]]
    for row in found["classes"]:
        cells = [row["name"]]
        for split in splits:
            cells += [f"{100 * row['share'][split]:.3f} %", str(row["images"][split])]
        lines.append(cells)
    return lines


def facts(found: dict) -> list[tuple[str, str]]:
    """Name and value of all results that are not per class."""
    rows = []
    for split, s in found["splits"].items():
        widths, heights = ([size[key] for size in s["sizes"]] for key in ("width", "height"))
        sizes = f"all {widths[0]}x{heights[0]}"
        if len(s["sizes"]) > 1:
            sizes = (
                f"{len(s['sizes'])} sizes, widths {min(widths)} to {max(widths)}, heights {min(heights)} to {max(heights)}, most "
                f"often {widths[0]}x{heights[0]} ({s['sizes'][0]['images']})"
            )
        modes = ", ".join(f"{n} {mode}" for mode, n in s["channels"].items())
        rows.append((split, f"{s['images']} images, {sizes}, {modes}"))
        rows.append((f"{split}: ignored pixels", f"{100 * s['ignored_share']:.2f} %"))
        for key, title in (("absent", "classes without a pixel"), ("rare", "rare classes (below 0.1 %)")):
            if s[key]:
                rows.append((f"{split}: {title}", ", ".join(s[key])))
    rows.append(("duplicates", str(len(found["duplicates"])) if found["duplicates"] else "none"))
    if found["suggested_class_weights"]:
        rows.append(("suggested class weights", str(found["suggested_class_weights"])))
    rows.append(("suggested crop_size", str(found["suggested_crop_size"])))
    return rows


def to_text(found: dict) -> str:
    """`class_table` and `facts` as text for a terminal."""
    cells = class_table(found)
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in cells
    ]
    lines += [
        "",
        *(f"{name}: {value}" for name, value in facts(found)),
        *(f"  {line}" for line in found["duplicates"][:10]),
    ]
    return "\n".join(lines)


def labelled_jpeg(dataset, index: int, width: int = _SAMPLE_WIDTH) -> bytes:
    """A picture, and beside it the same picture with its label overlaid, as the content of a JPEG."""
    image = displayed(ImageFormat.of(dataset).read(dataset.file_list[index][0]))
    panels, label = [image], dataset.stored_label(index)
    if label is not None:
        panels.append(overlay_label(image, label, classes_of(dataset).colors, 0.45))
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    panels = [cv2.resize(panel, (width, height), interpolation=cv2.INTER_AREA) for panel in panels]
    gap = np.full((height, 6, 3), 255, np.uint8)
    return encode_jpeg(np.concatenate([panels[0], *(part for panel in panels[1:] for part in (gap, panel))], axis=1))


def write_outputs(found: dict, datasets: dict[str, object], folder: str | Path, title: str, samples: int = 6) -> Path:
    """Writes `describe.json` and `describe.html`; returns the page's path.

    Args:
        found: result of `describe`.
        datasets: the same datasets.
        folder: output folder; created if needed.
        title: title of the page.
        samples: number of pictures shown per split, evenly spaced.
    """
    folder = Path(folder)
    write_bytes(folder / NAMES[0], (json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode())
    classes = classes_of(next(iter(datasets.values())))
    legend = [*zip(classes.names, classes.colors, strict=True), ("ignored", IGNORED_COLOR)]
    sections = [Section("Overview", rows=facts(found)), Section("Classes", table=class_table(found))]
    for split in found["splits"]:
        shares = [row["share"][split] for row in found["classes"]]
        bars = []
        for name, share, color in zip(classes.names, shares, classes.colors, strict=True):
            # A logarithmic scale; the shortest bar of a class that occurs can still be seen.
            length = 1 - math.log10(max(share, _LOWEST_SHARE)) / math.log10(_LOWEST_SHARE)
            bars.append((name, f"{100 * share:.3f} %", max(0.005, length) if share > 0 else 0.0, color))
        of = "all pixels; a pixel may belong to several classes" if found["multilabel"] else "the labelled pixels"
        note = f"Share of {of}, on a logarithmic scale from 0.001 % to 100 %."
        sections.append(Section(f"Pixels of each class: {split}", bars=bars, note=note))
    if found["duplicates"]:
        sections.append(Section("Duplicates", table=[["picture"], *([line] for line in found["duplicates"][:100])]))
    for split, dataset in datasets.items():
        pictures = [
            (labelled_jpeg(dataset, i), Path(dataset.file_list[i][0]).name)
            for i in even_indices(len(dataset.file_list), samples)
        ]
        sections.append(Section(f"Samples: {split}", pictures=pictures, legend=legend))
    total = sum(s["images"] for s in found["splits"].values())
    path = folder / NAMES[1]
    write_page(path, title, f"{total} images, {len(classes.names)} classes", sections)
    return path
