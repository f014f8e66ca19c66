# SPDX-License-Identifier: Apache-2.0
"""Pedestrians and riders."""

from paddle_dnl.data.scenes import textures
from paddle_dnl.data.scenes.canvas import Canvas

import numpy as np


def _part(canvas: Canvas, name, x, z, points, colour, lift, lean, size) -> None:
    """Draws one part of a body; `lean` shifts it forward in proportion to its height."""
    world = [(x + size * (px + lean * max(py - 0.8, 0)), lift + size * py, z) for px, py in points]
    canvas.add(name, canvas.camera.project(world), colour, z)


def draw_person(canvas: Canvas, rng, x, z, name="person", lift=0.0, lean=0.0, helmet=False) -> None:
    """Legs, coat, arms and head; a rider's legs are bent and the body leans forward.

    Args:
        canvas: canvas to draw on.
        rng: random generator for clothes and pose.
        x, z: position of the feet in metres.
        name: Cityscapes label.
        lift: height above the ground in metres.
        lean: forward shift per metre of height.
        helmet: draw a helmet instead of hair.
    """
    size = rng.uniform(0.92, 1.08) if name == "rider" else rng.choice([rng.uniform(0.92, 1.1), rng.uniform(0.65, 0.8)])
    coat, trousers = textures.paint(rng), textures.paint(rng) * 0.75
    skin = np.array((205, 160, 135)) * rng.uniform(0.5, 1.1)
    if name == "rider":
        legs = [(-0.15, 0.42), (0.3, 0.3), (0.32, -0.15), (0.14, -0.15), (0.12, 0.18), (-0.2, 0.22)]
        _part(canvas, name, x, z, legs, trousers, lift, 0.0, size)
        lift -= 0.42 * size
    else:
        step = rng.uniform(0.02, 0.28)
        for side in (-1, 1):
            leg = [(0.0, 0.9), (0.13 * side, 0.88), (side * (step + 0.09), 0.0), (side * step - 0.02, 0.0)]
            _part(canvas, name, x, z, leg, trousers, lift, 0.0, size)
    bottom = rng.uniform(0.72, 0.86)
    body = [(-0.2, bottom), (-0.25, 1.38), (-0.12, 1.48), (0.12, 1.48), (0.25, 1.38), (0.2, bottom)]
    _part(canvas, name, x, z, body, coat, lift, lean, size)
    for side in (-1, 1):
        if name == "rider":
            arm = [(0.1, 1.4), (0.52, 1.02), (0.56, 1.12), (0.2, 1.46)]
        else:
            swing = rng.uniform(0.02, 0.16)
            arm = [(side * 0.24, 1.38), (side * (0.3 + swing), 0.85), (side * (0.22 + swing), 0.82), (side * 0.16, 1.3)]
        _part(canvas, name, x, z, arm, coat * 0.85, lift, lean, size)
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    head = [(0.115 * np.cos(a), 1.62 + 0.15 * np.sin(a)) for a in angles]
    _part(canvas, name, x, z, head, skin, lift, lean, size)
    cap = [(0.13 * np.cos(a), 1.65 + 0.15 * np.sin(a)) for a in np.linspace(0, np.pi, 8)]
    _part(canvas, name, x, z, cap, textures.paint(rng) if helmet else skin * 0.3, lift, lean, size)
