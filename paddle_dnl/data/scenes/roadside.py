# SPDX-License-Identifier: Apache-2.0
"""Objects beside the road: houses, walls, fences, trees, poles, lights and signs."""

from paddle_dnl.data.scenes import textures
from paddle_dnl.data.scenes.canvas import Canvas

import numpy as np


def _upright(canvas: Canvas, x, near, far, bottom, top) -> np.ndarray:
    """Corners (top left first) of an upright plane along the street, x metres from its middle."""
    corners = [(x, top, far), (x, top, near), (x, bottom, near), (x, bottom, far)]
    return canvas.camera.project(corners if x > 0 else [corners[i] for i in (1, 0, 3, 2)])


def draw_house(canvas: Canvas, rng, x, near, far) -> None:
    """A house: its front along the street, its end wall across it, sometimes a roof."""
    height = rng.uniform(7, 16)
    floors = max(2, int(height / 3))
    picture = textures.facade(rng, floors, max(2, int((far - near) / 2.5)))
    depth_into_block = 12 * np.sign(x)
    end = canvas.camera.project(
        [(x, height, near), (x + depth_into_block, height, near), (x + depth_into_block, 0, near), (x, 0, near)]
    )
    canvas.add("building", end, textures.facade(rng, floors, 4) * 0.8, near, end)
    quad = _upright(canvas, x, near, far, 0, height)
    canvas.add("building", quad, picture, (near + far) / 2, quad)
    if rng.random() < 0.5:
        ridge = [
            (x, height, near),
            (x, height, far),
            (x + depth_into_block * 0.4, height + 3, far),
            (x + depth_into_block * 0.4, height + 3, near),
        ]
        canvas.add("building", canvas.camera.project(ridge), textures.mineral(rng) * 0.7, near)


def draw_wall(canvas: Canvas, rng, x, near, far) -> None:
    """Masonry along the street, about as high as a person."""
    height = rng.uniform(1.5, 2.3)
    quad = _upright(canvas, x, near, far, 0, height)
    canvas.add("wall", quad, textures.bricks(rng, max(3, int(far - near)), 8), near, quad)


def draw_fence(canvas: Canvas, rng, x, near, far) -> None:
    """Upright bars along the street."""
    quad = _upright(canvas, x, near, far, 0, rng.uniform(1.2, 1.9))
    canvas.add("fence", quad, textures.bars(rng, max(6, int(2.2 * (far - near)))), near, quad)


def draw_tree(canvas: Canvas, rng, x, z) -> None:
    """A trunk and a ragged crown, both vegetation."""
    height, radius = rng.uniform(4.5, 8), rng.uniform(1.3, 2.4)
    trunk = [(x - 0.16, 0, z), (x - 0.12, height * 0.7, z), (x + 0.12, height * 0.7, z), (x + 0.16, 0, z)]
    canvas.add("vegetation", canvas.camera.project(trunk), textures.mineral(rng) * 0.5, z)
    angles = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    ragged = radius * rng.uniform(0.75, 1.15, 18)
    crown = [(x + r * np.cos(a), height + 1.1 * r * np.sin(a), z) for a, r in zip(angles, ragged, strict=True)]
    canvas.add("vegetation", canvas.camera.project(crown), textures.foliage(rng), z)


def draw_hedge(canvas: Canvas, rng, x, near, far) -> None:
    """Bushes along the street."""
    height = rng.uniform(1.0, 2.4)
    steps = np.linspace(far, near, 9)
    top = [(x, height * rng.uniform(0.8, 1.15), z) for z in steps]
    outline = canvas.camera.project([*top, (x, 0, near), (x, 0, far)])
    canvas.add("vegetation", outline, textures.foliage(rng, 48, 128), near)


def _shaft(canvas: Canvas, rng, x, z, height, radius) -> None:
    corners = [(x - radius, 0, z), (x - radius, height, z), (x + radius, height, z), (x + radius, 0, z)]
    grey = textures.mineral(rng) * rng.uniform(0.3, 0.6)
    ramp = np.stack([grey * 0.7, grey * 1.25, grey * 0.8])[None].astype(np.float32)
    canvas.add("pole", canvas.camera.project(corners), ramp, z)


def draw_lamp(canvas: Canvas, rng, x, z) -> None:
    """A lamp post with an arm towards the road."""
    height = rng.uniform(5, 8)
    _shaft(canvas, rng, x, z, height, 0.2)
    reach = -1.8 * np.sign(x)
    arm = [(x, height, z), (x + reach, height + 0.1, z), (x + reach, height - 0.15, z), (x, height - 0.25, z)]
    canvas.add("pole", canvas.camera.project(arm), np.full(3, 80.0), z)


def draw_traffic_light(canvas: Canvas, rng, x, z) -> None:
    """A pole with a dark box and three round lamps, one of them lit."""
    height = rng.uniform(2.2, 3.0)
    _shaft(canvas, rng, x, z, height, 0.16)
    quad = canvas.camera.project(
        [(x - 0.36, height + 1.4, z), (x + 0.36, height + 1.4, z), (x + 0.36, height, z), (x - 0.36, height, z)]
    )
    picture = np.full((48, 22, 3), rng.uniform(20, 60), np.float32)
    colours, lit = ((230, 50, 40), (240, 180, 40), (60, 210, 110)), rng.integers(3)
    rows, columns = np.mgrid[:48, :22]
    for i, colour in enumerate(colours):
        lamp = (rows - 8 - 16 * i) ** 2 + (columns - 10.5) ** 2 < 40
        picture[lamp] = np.array(colour) * (1.0 if i == lit else 0.35)
    canvas.add("traffic light", quad, picture, z, quad)


def draw_sign(canvas: Canvas, rng, x, z) -> None:
    """A pole with a disc, triangle or square that has a rim."""
    height, size = rng.uniform(2.0, 2.7), rng.uniform(0.55, 0.7)
    _shaft(canvas, rng, x, z, height, 0.13)
    count = (16, 3, 4)[rng.integers(3)]
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False) + (np.pi / 2 if count == 3 else np.pi / 4)
    rim = [(x + size * np.cos(a), height + size * np.sin(a), z - 0.02) for a in angles]
    inner = [(x + 0.68 * size * np.cos(a), height + 0.68 * size * np.sin(a), z - 0.02) for a in angles]
    colour = np.array([(200, 40, 40), (40, 70, 170), (230, 190, 40)][rng.integers(3)], np.float32)
    canvas.add("traffic sign", canvas.camera.project(rim), colour, z)
    canvas.fill(
        canvas.camera.project(inner), np.full(3, rng.uniform(190, 250)) if rng.random() < 0.7 else colour * 0.6, z
    )
    mark = [
        (x - 0.1, height - 0.12, z - 0.03),
        (x + 0.1, height - 0.12, z - 0.03),
        (x + 0.1, height + 0.1, z - 0.03),
        (x - 0.1, height + 0.1, z - 0.03),
    ]
    canvas.fill(canvas.camera.project(mark), np.full(3, 30.0), z)
