# SPDX-License-Identifier: Apache-2.0
"""Textures, small RGB pictures in 0..255. Classes differ in their patterns, while their colours overlap on purpose."""

import cv2
import numpy as np

# Colours of man-made objects: facades, vehicles, clothes, walls.
_PAINTS = np.array(
    [
        (180, 60, 55), (60, 80, 150), (200, 200, 200), (60, 60, 65), (120, 125, 130), (190, 160, 90), (70, 110, 80),
        (150, 110, 80), (215, 205, 180), (95, 60, 70), (85, 130, 160), (140, 140, 120),
    ],
    np.float32,
)  # fmt: skip


def paint(rng: np.random.Generator) -> np.ndarray:
    """A random colour of a man-made object."""
    colour = _PAINTS[rng.integers(len(_PAINTS))] * rng.uniform(0.7, 1.2) + rng.normal(0, 12, 3)
    return np.clip(colour, 10, 245).astype(np.float32)


def mineral(rng) -> np.ndarray:
    """A random grey or brown: stone, asphalt, concrete, bare earth."""
    return np.clip(rng.uniform(70, 165) + rng.normal(0, 10, 3) + (rng.uniform(0, 18), 0, -rng.uniform(0, 18)), 10, 245)


def leafy(rng) -> np.ndarray:
    """A random green or olive: leaves in summer and autumn."""
    base = np.array([(62, 98, 42), (95, 108, 48), (48, 82, 46), (112, 104, 50)][rng.integers(4)])
    return np.clip(base * rng.uniform(0.7, 1.3) + rng.normal(0, 8, 3), 10, 245)


def earthy(rng) -> np.ndarray:
    """A random light green, yellow or brown: grass, dry or worn."""
    base = np.array([(135, 150, 80), (160, 145, 90), (120, 135, 62), (140, 118, 82)][rng.integers(4)])
    return np.clip(base * rng.uniform(0.75, 1.2) + rng.normal(0, 8, 3), 10, 245)


def _noise(rng, rows: int, columns: int, cell: float, strength: float) -> np.ndarray:
    """Grey noise `[rows, columns, 1]` with spots of about `cell` pixels."""
    small = rng.normal(0, strength, (max(2, int(rows / cell)), max(2, int(columns / cell)))).astype(np.float32)
    return cv2.resize(small, (columns, rows), interpolation=cv2.INTER_CUBIC)[..., None]


def rough(rng, colour, rows: int, columns: int, cell: float = 1.5, strength: float = 9.0) -> np.ndarray:
    """A plain surface with grain."""
    flat = np.broadcast_to(np.asarray(colour, np.float32), (rows, columns, 3))
    return flat + _noise(rng, rows, columns, cell, strength) + _noise(rng, rows, columns, 16, strength / 2)


def facade(rng, floors: int, windows: int) -> np.ndarray:
    """A house front: rows of windows, ledges, a darker ground floor."""
    rows, columns = 16 * floors, 14 * windows
    picture = rough(rng, paint(rng) if rng.random() < 0.3 else mineral(rng), rows, columns, 2, 6)
    glass, frame = rng.uniform(30, 130), rng.uniform(0.6, 1.5)
    for floor in range(floors):
        picture[16 * floor : 16 * floor + 2] *= frame
        for window in range(windows):
            y, x = 16 * floor + 5, 14 * window + 4
            shade = glass + rng.normal(0, 25)
            picture[y : y + 8, x : x + 6] = (shade, shade + 8, shade + 14)
            picture[y : y + 8, x + 3] *= 1.3
    picture[-8:] *= 0.75
    return picture


def tiles(rng, across: int, along: int) -> np.ndarray:
    """Paving: a grid of joints on stone."""
    picture = rough(rng, mineral(rng), 10 * along, 10 * across, 1.5, 6)
    picture[::10] *= 0.68
    picture[:, ::10] *= 0.68
    return picture


def bricks(rng, across: int, courses: int) -> np.ndarray:
    """Masonry: courses of stones with joints, every other one shifted."""
    colour = paint(rng) if rng.random() < 0.5 else mineral(rng)
    picture = rough(rng, colour, 8 * courses, 16 * across, 3, 12)
    for course in range(courses):
        picture[8 * course] *= 0.6
        picture[8 * course : 8 * course + 8, (8 * (course % 2)) :: 16] *= 0.6
    return picture


def bars(rng, count: int) -> np.ndarray:
    """A fence: upright bars with two rails before something dark."""
    picture = rough(rng, leafy(rng) * 0.45, 48, 8 * count, 3, 8)
    colour = paint(rng) if rng.random() < 0.5 else mineral(rng)
    for bar in range(count):
        picture[:, 8 * bar : 8 * bar + 3] = colour
    for rail in (6, 38):
        picture[rail : rail + 4] = colour * 0.9
    return picture


def foliage(rng, rows: int = 64, columns: int = 64) -> np.ndarray:
    """Leaves: strong spots of light and dark in several sizes."""
    flat = np.broadcast_to(leafy(rng).astype(np.float32), (rows, columns, 3))
    light = _noise(rng, rows, columns, 2.5, 22) + _noise(rng, rows, columns, 6, 22)
    return np.clip(flat + light, 5, 250)


def grass(rng, rows: int, columns: int) -> np.ndarray:
    """Ground with short upright streaks."""
    flat = np.broadcast_to(earthy(rng).astype(np.float32), (rows, columns, 3))
    streaks = cv2.resize(rng.normal(0, 16, (rows // 6 + 2, columns)).astype(np.float32), (columns, rows))
    return np.clip(flat + streaks[..., None], 5, 250)


def asphalt(rng) -> np.ndarray:
    """A road with fine grain and long faint tracks."""
    picture = rough(rng, mineral(rng) * 0.85, 160, 160, 1, 7)
    tracks = cv2.resize(rng.normal(0, 5, (1, 13)).astype(np.float32), (160, 160))
    return picture + tracks[..., None]


def sky(rng, rows: int, columns: int) -> np.ndarray:
    """A sky from overcast to blue, lighter at the horizon, with soft clouds."""
    top = np.array([(120, 160, 215), (190, 195, 200), (150, 150, 155), (215, 190, 165)][rng.integers(4)], np.float32)
    ramp = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    picture = top * (1 - ramp) + np.clip(top * 1.25, 0, 245) * ramp
    return np.broadcast_to(picture, (rows, columns, 3)) + _noise(rng, rows, columns, 40, 10)
