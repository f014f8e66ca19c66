# SPDX-License-Identifier: Apache-2.0
"""Writes the output files of tools/visualize_attention.py for one image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paddle_dnl.analysis import pictures as draw
from paddle_dnl.analysis import viewer
from paddle_dnl.analysis.filters import strongest
from paddle_dnl.analysis.geometry import Geometry
from paddle_dnl.analysis.nonlocal_maps import BlockAttention
from paddle_dnl.analysis.sampled_points import SampledAttention
from paddle_dnl.data.overlay import save_image

import numpy as np

Point = tuple[int, int]
_QUERIES_PER_GROUP = 32
FILTERS_SHOWN = 32
COMMON = ("overview.png", "viewer.html")


@dataclass(frozen=True)
class Scene:
    """An image and its query points.

    Attributes:
        picture: `[H, W, 3]` BGR uint8.
        points: (x, y) of the query points in pixels.
        folder: output folder.
        title: title of pages.
        predicted: name of the predicted class of each pixel, `[H, W]`; None if unknown.
    """

    picture: np.ndarray
    points: Sequence[Point]
    folder: Path
    title: str
    predicted: np.ndarray | None = None

    def name_point(self, x: int, y: int) -> str:
        """Returns a title for a point: its coordinates and predicted class."""
        return f"query {x},{y}" + ("" if self.predicted is None else f": {self.predicted[y, x]}")


def render_nonlocal(attention: BlockAttention, geometry: Geometry, scene: Scene) -> None:
    """Writes `unary.png`, `overview.png`, `viewer.html`, and `pairwise_X_Y.png` and `both_X_Y.png` for each point.

    For a plain non-local block, pairwise and unary are its two factors, see `BlockAttention.factors`; `both` are its
    weights.
    """
    parts = attention.factors()
    unary, unary_title = None, ""
    if parts.has_unary:
        heat = parts.unary()
        unary, unary_title = (
            _overlay(heat, geometry, scene.picture),
            f"unary, maximum {heat.max() * heat.size:.1f} x uniform",
        )
        save_image(scene.folder / "unary.png", unary)
    rows = []
    for x, y in scene.points:
        position = [geometry.position(x, y)]
        row = [(draw.mark(scene.picture, x, y), scene.name_point(x, y))]
        shown = {"pairwise": parts.pairwise(position)[0]} if parts.has_pairwise else {}
        if parts.has_pairwise and parts.has_unary:
            shown["both"] = attention.weights(position)[0]
        for name, heat in shown.items():
            made = draw.mark(_overlay(heat, geometry, scene.picture), x, y)
            save_image(scene.folder / f"{name}_{x}_{y}.png", made)
            row.append((made, f"{name}, maximum {heat.max() * heat.size:.1f} x uniform"))
        if unary is not None:
            row.insert(min(2, len(row)), (unary, unary_title))
        rows.append(row)
    save_image(scene.folder / "overview.png", draw.sheet(rows))
    _write_viewer(parts, geometry, scene)


def _overlay(heat: np.ndarray, geometry: Geometry, picture: np.ndarray) -> np.ndarray:
    return draw.heat_overlay(picture, draw.relative(geometry.enlarge(heat[None])[0]))


def _write_viewer(parts: BlockAttention, geometry: Geometry, scene: Scene) -> None:
    size = viewer.fit(*geometry.extent(), viewer.POSITIONS)
    unary = geometry.regrid(parts.unary()[None], size)[0] if parts.has_unary else None
    pairwise, both, note = None, None, f"Block {parts.name}, feature map {parts.size[1]}x{parts.size[0]}."
    if parts.has_pairwise:
        grid = viewer.fit(*geometry.extent(), viewer.QUERIES)
        pairwise = _on_grid(parts.pairwise, grid, size, geometry)
        if parts.combine == "multiply":
            both = _on_grid(parts.weights, grid, size, geometry)
        note += f" Stored: {grid[1]}x{grid[0]} queries, maps of {size[1]}x{size[0]}, one byte per weight."
    maps = viewer.ViewerMaps(scene.picture, pairwise, unary, parts.gate, both, scene.predicted)
    viewer.write_viewer(scene.folder / "viewer.html", scene.title, note, maps)


def _on_grid(rows, grid: tuple[int, int], size: tuple[int, int], geometry: Geometry) -> np.ndarray:
    """Returns the maps of a regular grid of queries over the image, reduced to `size`: `[*grid, *size]`."""
    cells = geometry.cells()
    positions = cells[viewer.grid_places(grid, cells.shape)].reshape(-1)
    # In groups, so that only the reduced maps of all queries are in memory.
    groups = [positions[i : i + _QUERIES_PER_GROUP] for i in range(0, len(positions), _QUERIES_PER_GROUP)]
    return np.concatenate([geometry.regrid(rows(group), size) for group in groups]).reshape(*grid, *size)


def render_samples(layers: Sequence[tuple[SampledAttention, Geometry]], scene: Scene) -> None:
    """Writes `samples_LAYER_X_Y.png` for each point and layer, and `overview.png` with all of them."""
    rows = []
    for x, y in scene.points:
        row = [(draw.mark(scene.picture, x, y), scene.name_point(x, y))]
        for sampled, geometry in layers:
            at = sampled.at(geometry.position(x, y))
            columns, lines = geometry.original_pixels(at[0], at[1])
            made = draw.draw_samples(draw.mark(scene.picture, x, y), columns, lines, at[2])
            save_image(scene.folder / f"samples_{sampled.name}_{x}_{y}.png", made)
            row.append((made, sampled.name))
        rows.append(row)
    save_image(scene.folder / "overview.png", draw.sheet(rows))


def render_filters(filters: dict[str, np.ndarray], scene: Scene) -> None:
    """Writes `filters_NAME.png` with the strongest filters of each module, and `overview.png` with all of them."""
    sheets = []
    for name, kernels in filters.items():
        made = draw.draw_filters(strongest(kernels, FILTERS_SHOWN))
        save_image(scene.folder / f"filters_{name}.png", made)
        sheets.append((made, f"{name}: {kernels.shape[-1]}x{kernels.shape[-1]}"))
    save_image(scene.folder / "overview.png", draw.sheet([[(scene.picture, scene.title)], sheets]))
