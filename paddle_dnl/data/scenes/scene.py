# SPDX-License-Identifier: Apache-2.0
"""Composes a street scene, drawn from far to near."""

from collections.abc import Callable

from paddle_dnl.data.scenes import roadside, textures, vehicles
from paddle_dnl.data.scenes.canvas import Camera, Canvas
from paddle_dnl.data.scenes.people import draw_person

import cv2
import numpy as np

_NEAR, _FAR = 2.2, 90.0


def _strip(canvas: Canvas, name, left, right, picture) -> None:
    """A strip of ground from the camera to the horizon, drawn in pieces so that its texture has the same scale everywhere."""
    edges = [_NEAR, 3, 4, 5.5, 8, 12, 18, 28, 45, _FAR]
    project = canvas.camera.project
    canvas.label(name, project([(left, 0, _FAR), (right, 0, _FAR), (right, 0, _NEAR), (left, 0, _NEAR)]))
    for near, far in zip(edges[:-1], edges[1:], strict=True):
        quad = project([(left, 0, far), (right, 0, far), (right, 0, near), (left, 0, near)])
        grown = quad + np.array([(0, -0.6), (0, -0.6), (0, 0.6), (0, 0.6)])
        canvas.fill(grown, picture, (near + far) / 2, quad)


def _ground(canvas: Canvas, rng, half_road, half_walk) -> None:
    """Sky, terrain, grass, sidewalks, and the road with lane lines and now and then a crossing."""
    camera = canvas.camera
    horizon = camera.center[1]
    everything = np.array([(0, 0), (camera.width, 0), (camera.width, horizon + 4), (0, horizon + 4)])
    canvas.add("sky", everything, textures.sky(rng, int(horizon) + 4, camera.width), 0.0)
    below = np.array([(0, horizon), (camera.width, horizon), (camera.width, camera.height), (0, camera.height)])
    canvas.add("terrain", below, textures.earthy(rng), 20.0)
    for side in (-1, 1):
        edges = sorted((side * half_walk, side * (half_walk + 30)))
        _strip(canvas, "terrain", *edges, textures.grass(rng, 120, 400))
    for side in (-1, 1):
        edges = sorted((side * half_road, side * half_walk))
        _strip(canvas, "sidewalk", *edges, textures.tiles(rng, 6, 8))
    _strip(canvas, "road", -half_road, half_road, textures.asphalt(rng))
    white = np.full(3, rng.uniform(165, 230))
    project = camera.project
    start = rng.uniform(0, 4)
    for z in np.arange(_NEAR + start, 60, 6.0):
        canvas.fill(project([(-0.08, 0, z + 3), (0.08, 0, z + 3), (0.08, 0, z), (-0.08, 0, z)]), white, z)
    for side in (-1, 1):
        x = side * (half_road - 0.3)
        line = [(x - 0.07, 0, 80), (x + 0.07, 0, 80), (x + 0.07, 0, _NEAR), (x - 0.07, 0, _NEAR)]
        canvas.fill(project(line), white, 15)
    if rng.random() < 0.4:
        z = rng.uniform(7, 16)
        for x in np.arange(-half_road + 0.5, half_road - 0.5, 1.0):
            canvas.fill(project([(x, 0, z + 3), (x + 0.5, 0, z + 3), (x + 0.5, 0, z), (x, 0, z)]), white, z)


def _edge_things(rng, side: int, half_walk: float) -> list[tuple[float, Callable]]:
    """Objects along one side of the street, as (depth, function that draws it)."""
    things: list[tuple[float, Callable]] = []
    z = rng.uniform(3, 6)
    while z < 70:
        length = rng.uniform(8, 18)
        if rng.random() < 0.75:
            x = side * (half_walk + rng.uniform(2.0, 6.0))
            things.append((z + 3, lambda c, x=x, z=z, f=z + length: roadside.draw_house(c, rng, x, z, f)))
        else:
            for tree in np.arange(z, z + length, 3.5):
                x = side * (half_walk + rng.uniform(1.5, 7))
                things.append((tree, lambda c, x=x, z=tree: roadside.draw_tree(c, rng, x, z)))
        z += length + rng.uniform(0, 3)
    z = rng.uniform(2.5, 5)
    while z < 40:
        length = rng.uniform(5, 11)
        draw = (roadside.draw_wall, roadside.draw_fence, roadside.draw_hedge, None)[rng.integers(4)]
        if draw is not None:
            x = side * (half_walk + rng.uniform(0.1, 0.6))
            things.append((z, lambda c, d=draw, x=x, z=z, f=z + length: d(c, rng, x, z, f)))
        z += length
    return things


def _street_things(rng, half_road: float, half_walk: float) -> list[tuple[float, Callable]]:
    """Vehicles, people and street furniture, as (depth, function that draws it). Rare classes are made frequent on purpose."""
    things: list[tuple[float, Callable]] = []

    def put(draw, count, x_range, z_range, **kwargs):
        for _ in range(count):
            side = rng.choice((-1, 1))
            x = side * rng.uniform(*x_range)
            # Nearer objects would be outside of the picture.
            nearest = abs(x) / 0.52
            z = rng.uniform(max(z_range[0], nearest), max(z_range[1], nearest + 3))
            things.append((z, lambda c, x=x, z=z: draw(c, rng, x, z, **kwargs)))

    lane = (half_road * 0.35, half_road * 0.65)
    walk = (half_road + 0.4, half_walk - 0.3)
    heavy = [vehicles.draw_truck, vehicles.draw_bus, vehicles.draw_train]
    first = rng.integers(3)
    put(heavy[first], 1, lane, (7, 17))
    put(heavy[(first + rng.integers(1, 3)) % 3], int(rng.random() < 0.7), lane, (16, 32))
    put(vehicles.draw_car, rng.integers(1, 4), lane, (6, 30))
    put(vehicles.draw_car, rng.integers(0, 3), (half_road - 1.1, half_road - 0.9), (5, 25))
    put(draw_person, rng.integers(3, 6), walk, (4.5, 9))
    put(draw_person, rng.integers(1, 3), (0, half_road), (6, 12))
    bike, motor = vehicles.draw_bicycle, vehicles.draw_motorcycle
    put(bike, rng.integers(1, 3), walk, (4.5, 8))
    put(motor, int(rng.random() < 0.3), (half_road * 0.6, half_walk - 0.8), (4.5, 9))
    put(bike, int(rng.random() < 0.75), (half_road * 0.3, half_road), (5, 9), ridden=True)
    put(motor, int(rng.random() < 0.5), (half_road * 0.3, half_road), (5, 9), ridden=True)
    put(roadside.draw_lamp, rng.integers(1, 3), (half_road + 0.3, half_road + 0.8), (5, 20))
    put(roadside.draw_traffic_light, rng.integers(1, 4), (half_road + 0.2, half_road + 0.7), (6, 10))
    put(roadside.draw_sign, rng.integers(1, 4), (half_road + 0.2, half_road + 1.0), (5.5, 9))
    put(roadside.draw_tree, rng.integers(0, 2), (half_road + 1.0, half_walk), (9, 25))
    return things


def draw_scene(rng: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, list[dict]]:
    """One street scene.

    Args:
        rng: random generator for the whole scene.
        width, height: size in pixels.

    Returns:
        The picture, RGB uint8 `[H, W, 3]`, and its objects as Cityscapes stores them: mappings with `label` and `polygon`
        (integer pixel positions), sorted from far to near; later ones cover earlier ones.
    """
    haze = np.array([(190, 195, 205), (165, 165, 170), (205, 195, 180)][rng.integers(3)], np.float32)
    center = (width * rng.uniform(0.42, 0.58), height * rng.uniform(0.38, 0.46))
    camera = Camera(width, height, 0.85 * width, center, rng.uniform(1.4, 2.0))
    canvas = Canvas(camera, haze, rng.uniform(60, 160))
    half_road = rng.uniform(3.0, 4.2)
    half_walk = half_road + rng.uniform(1.8, 2.8)
    _ground(canvas, rng, half_road, half_walk)
    things = _street_things(rng, half_road, half_walk)
    for side in (-1, 1):
        things += _edge_things(rng, side, half_walk)
    for _, draw in sorted(things, key=lambda thing: -thing[0]):
        draw(canvas)
    bonnet = height * rng.uniform(0.93, 0.97)
    xs = np.linspace(0, width - 1, 9)
    arc = [(x, bonnet + (x / width - 0.5) ** 2 * height * 0.2) for x in xs]
    hood = np.array([*arc, (width - 1, height - 1), (0, height - 1)])
    canvas.add("ego vehicle", hood, textures.paint(rng) * 0.5, 0.0)
    border = np.array([(0, 0), (width - 1, 0), (width - 1, 1), (0, 1)])
    canvas.label("out of roi", border)
    # Light: exposure, colour and fall-off across the picture, blur, gamma and noise.
    direction = rng.uniform(-0.18, 0.18, 2)
    ramp = 1 + direction[0] * np.linspace(-1, 1, width)[None] + direction[1] * np.linspace(-1, 1, height)[:, None]
    image = canvas.image * ramp[..., None] * rng.uniform(0.6, 1.2) * rng.uniform(0.9, 1.1, 3)
    image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), rng.uniform(0.4, 0.8))
    image = 255 * np.power(np.clip(image / 255, 0, 1), rng.uniform(0.85, 1.15))
    image += rng.normal(0, rng.uniform(2, 6), image.shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), canvas.objects
