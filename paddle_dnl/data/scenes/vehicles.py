# SPDX-License-Identifier: Apache-2.0
"""Vehicles: cars, trucks, buses, trams, motorcycles, bicycles and their riders."""

from paddle_dnl.data.scenes import textures
from paddle_dnl.data.scenes.canvas import Canvas
from paddle_dnl.data.scenes.people import draw_person

import cv2
import numpy as np


def _ellipse(center, radii) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    return np.asarray(center) + np.stack([np.cos(angles), np.sin(angles)], 1) * radii


class _Box:
    """A box on the ground seen from the camera: its near face, its visible side face, and its outline.

    `x` is the middle and `z` the distance of the near face; `bottom` and `top` are heights; `inset` narrows the top face.
    """

    def __init__(self, canvas: Canvas, x, z, width, length, bottom, top, inset=0.0, taper=0.0):
        left, right, far = x - width / 2, x + width / 2, z + length
        upper_left, upper_right = left + inset, right - inset
        near_top, far_top = z + taper, far - taper
        self.front = canvas.camera.project(
            [(upper_left, top, near_top), (upper_right, top, near_top), (right, bottom, z), (left, bottom, z)]
        )
        if x > 0:  # the left side is visible
            corners = [(upper_left, top, far_top), (upper_left, top, near_top), (left, bottom, z), (left, bottom, far)]
        else:
            corners = [
                (upper_right, top, near_top), (upper_right, top, far_top), (right, bottom, far), (right, bottom, z)
            ]  # fmt: skip
        self.side = canvas.camera.project(corners)
        self.outline = cv2.convexHull(np.concatenate([self.front, self.side]).astype(np.float32))[:, 0]

    def draw(self, canvas: Canvas, name: str, front, side, depth) -> None:
        canvas.label(name, self.outline)
        canvas.fill(self.outline, side.mean((0, 1)), depth)
        canvas.fill(self.side, side, depth, self.side)
        canvas.fill(self.front, front, depth, self.front)


def _shadow(canvas: Canvas, x, z, width, length) -> None:
    corners = [
        (x - width / 2, z - 0.3),
        (x + width / 2, z - 0.3),
        (x + width / 2, z + length),
        (x - width / 2, z + length),
    ]
    canvas.shade(canvas.camera.project([(cx, 0, max(cz, 0.5)) for cx, cz in corners]), 0.5)


def _wheels(canvas: Canvas, name, x, z, width, radius) -> None:
    for side in (-1, 1):
        low = canvas.camera.project([(x + side * width * 0.38, radius, z)])[0]
        size = canvas.camera.focal / z * radius
        canvas.add(name, _ellipse(low, (size * 0.45, size)), np.full(3, 28.0), z)


def _lights(picture: np.ndarray, rows: slice, rear: bool) -> None:
    colour = (200, 40, 30) if rear else (240, 235, 200)
    width = picture.shape[1]
    picture[rows, : width // 6] = colour
    picture[rows, -(width // 6) :] = colour


def draw_car(canvas: Canvas, rng, x, z) -> None:
    """A car: a low body, a narrower cabin with windows, lights and two near wheels."""
    width, length, rear = 1.8, rng.uniform(3.6, 4.6), rng.random() < 0.6
    colour = textures.paint(rng)
    _shadow(canvas, x, z, width * 1.1, length)
    _wheels(canvas, "car", x, z, width, 0.34)
    body_front = textures.rough(rng, colour, 24, 48, 4, 4)
    _lights(body_front, slice(4, 11), rear)
    body_front[17:22] = 40
    if rear:
        body_front[10:16, 18:30] = 225
    _Box(canvas, x, z, width, length, 0.28, 0.92).draw(
        canvas, "car", body_front, textures.rough(rng, colour * 0.7, 24, 64, 4, 4), z
    )
    glass = rng.uniform(25, 90)
    cabin = textures.rough(rng, colour * 0.95, 24, 48, 4, 3)
    cabin[4:22, 4:44] = (glass, glass + 6, glass + 12)
    side = textures.rough(rng, colour * 0.65, 24, 64, 4, 3)
    side[4:21, 5:29] = side[4:21, 34:58] = glass * 0.8
    _Box(canvas, x, z + 0.4, width * 0.96, length * 0.7, 0.9, 1.45, inset=0.18, taper=0.35).draw(
        canvas, "car", cabin, side, z
    )


def draw_truck(canvas: Canvas, rng, x, z) -> None:
    """A truck from behind: a plain tall cargo box with door bars, above a dark frame with wheels."""
    width, height, length = 2.5, rng.uniform(3.0, 3.7), rng.uniform(5, 8)
    colour = textures.paint(rng)
    _shadow(canvas, x, z, width * 1.1, length)
    _Box(canvas, x, z, width * 0.9, length, 0.25, 0.95).draw(
        canvas, "truck", np.full((8, 8, 3), 45.0), np.full((8, 8, 3), 35.0), z
    )
    _wheels(canvas, "truck", x, z, width, 0.5)
    back = textures.rough(rng, colour, 64, 64, 6, 4)
    back[:, 31:33] *= 0.45
    back[2:62, [14, 15, 48, 49]] *= 0.6
    back[[0, 1, 62, 63]] *= 0.5
    side = textures.rough(rng, colour * 0.75, 64, 96, 6, 4)
    side[:, ::12] *= 0.85
    _Box(canvas, x, z, width, length, 0.95, height).draw(canvas, "truck", back, side, z)
    lamps = np.full((4, 32, 3), 50.0)
    _lights(lamps, slice(0, 4), True)
    quad = _Box(canvas, x, z - 0.02, width, 0.1, 0.75, 0.95).front
    canvas.fill(quad, lamps, z, quad)


def draw_bus(canvas: Canvas, rng, x, z) -> None:
    """A bus: painted in two bands, with a wide rear window and a row of windows along the side."""
    width, height, length = 2.6, 3.1, rng.uniform(8, 12)
    colour, band = textures.paint(rng), textures.paint(rng)
    _shadow(canvas, x, z, width * 1.1, length)
    _wheels(canvas, "bus", x, z, width, 0.48)
    glass = rng.uniform(25, 80)
    front = textures.rough(rng, colour, 64, 56, 6, 3)
    front[10:34, 3:53] = (glass, glass + 5, glass + 12)
    front[2:8, 12:44] = (235, 170, 40)
    front[40:46] = band
    _lights(front, slice(50, 57), rng.random() < 0.5)
    side = textures.rough(rng, colour * 0.75, 64, 160, 6, 3)
    side[40:46] = band * 0.75
    for window in range(6):
        side[12:34, 6 + 26 * window : 27 + 26 * window] = glass * 0.8
    _Box(canvas, x, z, width, length, 0.35, height, inset=0.08).draw(canvas, "bus", front, side, z)


def draw_train(canvas: Canvas, rng, x, z) -> None:
    """A tram on rails: long and tall, a pointed front with one tall window, a pantograph, no visible wheels."""
    width, height, length = 2.6, 3.5, rng.uniform(18, 28)
    colour, skirt = textures.paint(rng), textures.paint(rng)
    for rail in (-0.7, 0.7):
        near, far = max(z - 6, 2.5), z
        corners = [
            (x + rail - 0.06, 0, far),
            (x + rail + 0.06, 0, far),
            (x + rail + 0.06, 0, near),
            (x + rail - 0.06, 0, near),
        ]
        canvas.fill(canvas.camera.project(corners), np.full(3, 150.0), z)
    _shadow(canvas, x, z, width * 1.05, length)
    glass = rng.uniform(20, 70)
    front = textures.rough(rng, colour, 72, 52, 6, 3)
    front[8:44, 10:42] = (glass, glass + 5, glass + 12)
    front[2:6, 20:32] = (250, 235, 190)
    front[50:56, 4:12] = front[50:56, 40:48] = (250, 240, 205)
    front[58:] = skirt * 0.8
    side = textures.rough(rng, colour * 0.78, 72, 320, 6, 3)
    side[12:38, 4:] = glass * 0.8
    side[12:38, ::20] = colour * 0.78
    side[44:48] = skirt
    side[12:62, 70:92] = side[12:62, 220:242] = colour * 0.5
    side[62:] = 40
    _Box(canvas, x, z, width, length, 0.1, height, inset=0.22, taper=0.25).draw(canvas, "train", front, side, z)
    arm = canvas.camera.project([(x, height, z + 3), (x + 0.5, height + 0.9, z + 4), (x - 0.5, height + 0.9, z + 4)])
    canvas.add("train", arm, np.full(3, 40.0), z)


def _two_wheels(canvas: Canvas, name, x, z, gap, radius, tyre) -> None:
    """Two wheels seen from the side, filled for the label, drawn as rings."""
    scale = canvas.camera.focal / z
    for side in (-1, 1):
        center = canvas.camera.project([(x + side * gap / 2, radius, z)])[0]
        canvas.label(name, _ellipse(center, (radius * scale, radius * scale)))
        canvas.fill(_ellipse(center, (radius * scale, radius * scale)), np.full(3, tyre), z)
        inner = radius * scale * 0.68
        canvas.fill(_ellipse(center, (inner, inner)), np.full(3, 120.0), z)


def draw_bicycle(canvas: Canvas, rng, x, z, ridden: bool = False) -> None:
    """A bicycle from the side: two thin rings and a frame; with a person leaning on it when ridden."""
    colour = textures.paint(rng)
    _two_wheels(canvas, "bicycle", x, z, 1.1, 0.36, 35.0)
    frame = [(-0.5, 0.36), (-0.2, 0.85), (0.35, 0.88), (0.42, 1.08), (0.55, 1.08), (0.5, 0.4), (0.1, 0.32)]
    canvas.add("bicycle", canvas.camera.project([(x + fx, fy, z) for fx, fy in frame]), colour, z)
    if ridden:
        draw_person(canvas, rng, x - 0.1, z, name="rider", lift=0.5, lean=0.35)


def draw_motorcycle(canvas: Canvas, rng, x, z, ridden: bool = False) -> None:
    """A motorcycle from the side: fat wheels, a heavy body with tank and seat, a screen in front."""
    colour = textures.paint(rng)
    _two_wheels(canvas, "motorcycle", x, z, 1.45, 0.36, 22.0)
    rear = [(-0.4, 0.25), (-0.95, 0.62), (-0.85, 0.95), (-0.1, 0.92)]
    body = [*rear, (0.1, 1.15), (0.5, 1.12), (0.75, 1.4), (0.85, 1.1), (0.85, 0.6), (0.3, 0.25)]
    canvas.add("motorcycle", canvas.camera.project([(x + bx, by, z) for bx, by in body]), colour, z)
    engine = [(-0.35, 0.3), (-0.35, 0.65), (0.35, 0.65), (0.35, 0.3)]
    canvas.fill(canvas.camera.project([(x + ex, ey, z) for ex, ey in engine]), np.full(3, 45.0), z)
    seat = [(-0.9, 0.9), (-0.9, 1.0), (-0.05, 1.0), (-0.05, 0.88)]
    canvas.fill(canvas.camera.project([(x + sx, sy, z) for sx, sy in seat]), np.full(3, 30.0), z)
    if ridden:
        draw_person(canvas, rng, x - 0.25, z, name="rider", lift=0.5, lean=0.2, helmet=True)
