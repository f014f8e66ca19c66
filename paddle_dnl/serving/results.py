# SPDX-License-Identifier: Apache-2.0
"""Responses computed from label maps: shares of classes and COCO's run lengths."""

import json

from paddle_dnl.data.classes import ClassInfo, colors_or_palette

import numpy as np
from pydantic import BaseModel, Field


class ClassShare(BaseModel):
    """A class that occurs in the picture."""

    id: int
    name: str
    color: tuple[int, int, int] = Field(description="red, green, blue")
    pixels: int
    share: float = Field(description="share of all pixels, 0 to 1")


class Shares(BaseModel):
    """Classes in descending order of their share."""

    width: int
    height: int
    classes: list[ClassShare]


class RunLengths(BaseModel):
    """COCO's uncompressed run lengths: column-major, beginning with the run of zeros."""

    size: tuple[int, int] = Field(description="height, width")
    counts: list[int]


class ClassMask(ClassShare):
    """A class and its mask."""

    rle: RunLengths


class Masks(BaseModel):
    """Classes in descending order of their share, each with its mask."""

    width: int
    height: int
    classes: list[ClassMask]


class ClassNames:
    """Name and color of each class number, with defaults for classes that the export does not name."""

    def __init__(self, classes: ClassInfo | None):
        # A lone surrogate cannot be written as UTF-8.
        self.names = [name.encode("utf-8", "replace").decode() for name in (classes.names if classes else ())]
        self.colors = colors_or_palette(classes)

    def describe(self, number: int) -> dict:
        """Returns `id`, `name` and `color` of a class."""
        name = self.names[number] if number < len(self.names) else f"class_{number}"
        color = self.colors[number] if number < len(self.colors) else (0, 0, 0)
        return {"id": number, "name": name, "color": list(color)}


def shares(label: np.ndarray, classes: ClassNames) -> dict:
    """Returns `Shares` of a label map `[H, W]` uint8 as a dictionary."""
    counts = np.bincount(label.ravel(), minlength=256)
    order = sorted(np.flatnonzero(counts), key=lambda number: (-counts[number], number))
    found = [
        classes.describe(int(number)) | {"pixels": int(counts[number]), "share": float(counts[number] / label.size)}
        for number in order
    ]
    return {"width": label.shape[1], "height": label.shape[0], "classes": found}


def masks(label: np.ndarray, classes: ClassNames) -> dict:
    """Returns `Masks` of a label map `[H, W]` uint8 as a dictionary."""
    answer = shares(label, classes)
    columns = label.ravel(order="F")
    changes = np.flatnonzero(columns[1:] != columns[:-1]) + 1
    starts = np.concatenate([[0], changes])
    ends = np.concatenate([changes, [columns.size]])
    values = columns[starts]
    for found in answer["classes"]:
        mine = values == found["id"]
        edges = np.stack([starts[mine], ends[mine]], axis=1).ravel()
        counts = np.diff(edges, prepend=0).tolist()
        if edges[-1] < columns.size:
            counts.append(int(columns.size - edges[-1]))
        found["rle"] = {"size": list(label.shape), "counts": counts}
    return answer


def as_json(answer: dict) -> bytes:
    """Encodes a dictionary as compact JSON."""
    return json.dumps(answer, separators=(",", ":")).encode()
