# SPDX-License-Identifier: Apache-2.0
"""Writes an interactive page, one HTML file, with the pairwise attention map of the position under the mouse."""

import base64
import html
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from paddle_dnl.analysis.pictures import colors
from paddle_dnl.files.atomic import write_text

import cv2
import numpy as np

# Limits of the precomputed maps: 512 queries x 2048 positions are 1 MiB, 1.4 MB in base64; twice that with `both`.
QUERIES, POSITIONS, PICTURE_WIDTH = 512, 2048, 1024
TITLES = {"pairwise": "pairwise", "unary": "unary", "both": "both together"}


@dataclass
class ViewerMaps:
    """Content of the page.

    Attributes:
        picture: `[H, W, 3]` BGR; the maps cover all of it.
        pairwise: map of each grid point, `[rows, columns, h, w]`, or None.
        unary: `[h, w]` or None.
        gate: factor of the pairwise map in the sum of both maps.
        both: `[rows, columns, h, w]` if both terms are multiplied, because a product of stored bytes would be too
            coarse.
        predicted: name of the predicted class of each pixel, `[H, W]`, or None.
    """

    picture: np.ndarray
    pairwise: np.ndarray | None
    unary: np.ndarray | None
    gate: float = 1.0
    both: np.ndarray | None = None
    predicted: np.ndarray | None = None


def fit(height: int, width: int, limit: int) -> tuple[int, int]:
    """Returns the size to which a map is reduced by one integer factor for both axes, with at most `limit` cells."""
    factor = 1
    while -(-height // factor) * -(-width // factor) > limit:
        factor += 1
    return -(-height // factor), -(-width // factor)


def grid_places(grid: tuple[int, int], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns indices (rows, columns) of the central pixels of the cells of a regular grid over a picture `[H, W]`."""
    ys, xs = (((np.arange(count) + 0.5) * side / count).astype(int) for count, side in zip(grid, size, strict=True))
    return np.ix_(ys, xs)


def _bytes(maps: np.ndarray) -> tuple[str, np.ndarray]:
    """Returns maps `[n, cells]` as base64 of bytes relative to each map's largest weight, and those weights `[n]`."""
    top = maps.max(1)
    scaled = np.rint(np.clip(maps, 0, None) / np.where(top > 0, top, 1)[:, None] * 255).astype(np.uint8)
    return base64.b64encode(scaled.tobytes()).decode(), top


def _content(maps: ViewerMaps) -> dict:
    height, width = maps.picture.shape[:2]
    small = maps.picture
    if width > PICTURE_WIDTH:
        reduced = (PICTURE_WIDTH, max(1, round(height * PICTURE_WIDTH / width)))
        small = cv2.resize(small, reduced, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])
    given = maps.pairwise[0, 0] if maps.pairwise is not None else maps.unary
    terms = [name for name, term in (("pairwise", maps.pairwise), ("unary", maps.unary)) if term is not None]
    data = {
        "picture": base64.b64encode(jpeg.tobytes()).decode(),
        "size": [height, width],
        "map": list(given.shape),
        "grid": [1, 1] if maps.pairwise is None else list(maps.pairwise.shape[:2]),
        "palette": base64.b64encode(colors()[:, ::-1].tobytes()).decode(),
        "terms": terms + ["both"] * (len(terms) == 2),
        "titles": TITLES,
        "gate": maps.gate,
    }
    if maps.predicted is not None:
        shown = maps.predicted[grid_places(data["grid"], (height, width))]
        names, numbers = np.unique(shown, return_inverse=True)
        data["predicted"], data["classes"] = numbers.ravel().tolist(), names.tolist()
    for name in ("pairwise", "both"):
        if getattr(maps, name) is not None:
            data[name], top = _bytes(getattr(maps, name).reshape(-1, given.size))
            data[f"{name}_max"] = [float(f"{value:.6g}") for value in top]
    if maps.unary is not None:
        data["unary"], top = _bytes(maps.unary.reshape(1, -1))
        data["unary_max"] = float(top[0])
    return data


def write_viewer(path: str | Path, title: str, note: str, maps: ViewerMaps) -> None:
    """Writes the page.

    Args:
        path: path of the HTML file, which needs no other files.
        title, note: title of the page, and a line below the picture.
        maps: content; at most `QUERIES` grid points and `POSITIONS` cells, see `fit`, for browsers to load it quickly.

    Raises:
        ValueError: neither a pairwise nor a unary map.
    """
    if maps.pairwise is None and maps.unary is None:
        raise ValueError("the viewer needs a pairwise or a unary map")
    page = resources.files(__package__).joinpath("viewer.html").read_text(encoding="utf-8")
    # Inserts the data last, so that text in the data is not taken for a placeholder.
    for mark, text in (("__TITLE__", html.escape(title)), ("__NOTE__", html.escape(note))):
        page = page.replace(mark, text)
    page = page.replace("__DATA__", json.dumps(_content(maps)).replace("</", "<\\/"))
    write_text(path, page)
