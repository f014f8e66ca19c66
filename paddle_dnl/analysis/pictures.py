# SPDX-License-Identifier: Apache-2.0
"""Draws attention maps, sampled points and filters. Pictures are BGR uint8 `[H, W, 3]`, as in OpenCV."""

from collections.abc import Sequence

import cv2
import numpy as np

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def colors() -> np.ndarray:
    """Returns 256 BGR colors from black through red to pale yellow, `[256, 3]`."""
    return cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_INFERNO)[:, 0]


def relative(heat: np.ndarray) -> np.ndarray:
    """Scales a map by its 99.5th percentile of positive values and clips it to [0, 1]."""
    # One position may have nearly all the weight; the percentile of the positive values keeps the others visible.
    positive = heat[heat > 0]
    top = float(np.percentile(positive, 99.5)) if positive.size else 0.0
    return np.clip(heat / top, 0, 1) if top > 0 else np.zeros(heat.shape)


def heat_overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Overlays the gray picture with a map: the larger the weight, the brighter and more opaque the color.

    Args:
        picture: `[H, W, 3]`.
        heat: `[H, W]` in [0, 1].
    """
    gray = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)[..., None].repeat(3, axis=2)
    color = colors()[np.rint(heat * 255).astype(np.uint8)]
    opacity = (0.35 + 0.6 * heat)[..., None]
    return np.rint(gray * (1 - opacity) + color * opacity).astype(np.uint8)


def mark(picture: np.ndarray, x: int, y: int) -> np.ndarray:
    """Returns a copy with a cross and a ring around a pixel, in black and white to be visible on any background."""
    picture, size = picture.copy(), max(4, round(min(picture.shape[:2]) / 40))
    for color, extra in ((_BLACK, 2), (_WHITE, 0)):
        thickness = max(1, size // 6) + extra
        cv2.circle(picture, (x, y), size, color, thickness, cv2.LINE_AA)
        for dx, dy in ((1, 0), (0, 1)):
            start, stop = (x - 2 * size * dx, y - 2 * size * dy), (x + 2 * size * dx, y + 2 * size * dy)
            cv2.line(picture, start, stop, color, thickness, cv2.LINE_AA)
    return picture


def draw_samples(picture: np.ndarray, x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Draws sampled points over a picture: one color per head, area proportional to the weight.

    Args:
        picture: `[H, W, 3]`.
        x, y: coordinates in pixels, `[heads, points]`; points outside are clipped.
        weights: `[heads, points]`; they sum to 1 per head.
    """
    scale = 4  # draws on a larger picture, for fractional coordinates
    canvas = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    largest = scale * max(4.0, min(picture.shape[:2]) / 40)
    heads = cv2.applyColorMap(np.linspace(20, 235, len(x)).astype(np.uint8)[:, None], cv2.COLORMAP_RAINBOW)[:, 0]
    for xs, ys, ws, color in zip(x, y, weights, heads.tolist(), strict=True):
        for px, py, weight in zip(xs, ys, ws, strict=True):
            center = (round(float(px + 0.5) * scale), round(float(py + 0.5) * scale))
            radius = max(2, round(largest * float(weight) ** 0.5))
            if abs(center[0]) < 1 << 20 and abs(center[1]) < 1 << 20:
                cv2.circle(canvas, center, radius + 2, _WHITE, -1, cv2.LINE_AA)
                cv2.circle(canvas, center, radius, color, -1, cv2.LINE_AA)
    return cv2.resize(canvas, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_AREA)


def draw_filters(filters: np.ndarray, columns: int = 8, cell: int = 56) -> np.ndarray:
    """Draws kernels `[n, k, k]` in a grid with a common scale: red is positive, blue negative, white zero."""
    top = max(float(np.abs(filters).max()), 1e-30)
    rows, size = -(-len(filters) // columns), filters.shape[-1]
    step = max(1, cell // size) * size + 6
    sheet = np.full((rows * step + 6, columns * step + 6, 3), 255, np.uint8)
    for index, kernel in enumerate(filters):
        share = np.clip(kernel / top, -1, 1)[..., None]
        ends = np.where(share > 0, (40, 40, 200), (190, 90, 30))
        tile = np.rint(255 + (ends - 255) * np.abs(share)).astype(np.uint8).repeat((step - 6) // size, 0)
        tile = cv2.copyMakeBorder(tile.repeat((step - 6) // size, 1)[1:-1, 1:-1], 1, 1, 1, 1, 0, value=(150,) * 3)
        top_left = 6 + index // columns * step, 6 + index % columns * step
        sheet[top_left[0] : top_left[0] + step - 6, top_left[1] : top_left[1] + step - 6] = tile
    return sheet


def sheet(rows: Sequence[Sequence[tuple[np.ndarray, str]]], width: int = 420) -> np.ndarray:
    """Arranges rows of (picture, title), each scaled to `width`; shorter rows are padded with white."""
    made, bar, gap = [], 24, 6
    for row in rows:
        panels = []
        for picture, title in row:
            height = round(picture.shape[0] * width / picture.shape[1])
            shrinks = width < picture.shape[1]
            panel = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            panel = cv2.copyMakeBorder(panel, bar, 0, 0, gap, cv2.BORDER_CONSTANT, value=_WHITE)
            cv2.putText(panel, title, (2, bar - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _BLACK, 1, cv2.LINE_AA)
            panels.append(panel)
        made.append(np.concatenate(panels, axis=1))
    widest = max(row.shape[1] for row in made)
    padded = [
        cv2.copyMakeBorder(row, 0, gap, 0, widest - row.shape[1], cv2.BORDER_CONSTANT, value=_WHITE) for row in made
    ]
    return np.concatenate(padded, axis=0)
