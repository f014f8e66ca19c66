# SPDX-License-Identifier: Apache-2.0
"""A picture and the labelled polygons of its objects, drawn from far to near."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above a flat ground.

    World coordinates in metres: x to the right, y up from the ground, z forward.

    Attributes:
        width, height: size of the picture in pixels.
        focal: focal length in pixels.
        center: principal point (x, y) in pixels, on the horizon.
        above_ground: height of the camera in metres.
    """

    width: int
    height: int
    focal: float
    center: tuple[float, float]
    above_ground: float

    def project(self, points) -> np.ndarray:
        """World points `[N, 3]` with z > 0 to pixels `[N, 2]`."""
        points = np.asarray(points, np.float64)
        scale = self.focal / points[:, 2]
        x = self.center[0] + points[:, 0] * scale
        y = self.center[1] + (self.above_ground - points[:, 1]) * scale
        return np.stack([x, y], 1)


def clip_polygon(polygon: np.ndarray, width: int, height: int) -> np.ndarray:
    """The part of a polygon `[N, 2]` inside the picture (Sutherland-Hodgman); may be empty."""
    for axis, bound, sign in ((0, 0, 1), (0, width - 1, -1), (1, 0, 1), (1, height - 1, -1)):
        kept: list[np.ndarray] = []
        for i, here in enumerate(polygon):
            before = polygon[i - 1]
            inside, was_inside = sign * (here[axis] - bound) >= 0, sign * (before[axis] - bound) >= 0
            if inside != was_inside:
                share = (bound - before[axis]) / (here[axis] - before[axis])
                kept.append(before + share * (here - before))
            if inside:
                kept.append(here)
        polygon = np.array(kept).reshape(-1, 2)
        if len(polygon) == 0:
            break
    return polygon


class Canvas:
    """A picture being drawn.

    Args:
        camera: the camera, with the size of the picture.
        haze: colour of distant objects, RGB in 0..255.
        visibility: distance in metres at which an object has 1/e of its own colour, the rest is haze.
    """

    def __init__(self, camera: Camera, haze, visibility: float):
        self.camera = camera
        self.image = np.zeros((camera.height, camera.width, 3), np.float32)
        self.objects: list[dict] = []
        self._haze, self._visibility = np.asarray(haze, np.float32), visibility

    def label(self, name: str, polygon: np.ndarray) -> None:
        """Adds a polygon (in pixels, clipped to the picture) with a Cityscapes label to the list of objects."""
        inside = np.rint(clip_polygon(np.asarray(polygon, np.float64), self.camera.width, self.camera.height))
        if len(inside) >= 3 and cv2.contourArea(inside.astype(np.float32)) >= 1:
            self.objects.append({"label": name, "polygon": inside.astype(int).tolist()})

    def fill(self, polygon: np.ndarray, texture: np.ndarray, depth: float, quad: np.ndarray | None = None) -> None:
        """Fills a polygon with a texture.

        Args:
            polygon: `[N, 2]` in pixels.
            texture: `[h, w, 3]` RGB in 0..255, or one colour `[3]`.
            depth: distance in metres, for the haze.
            quad: positions of the texture's corners (top left, top right, bottom right, bottom left); by default those of the
                polygon's bounding box.
        """
        polygon = np.asarray(polygon, np.float32)
        x0, y0 = np.floor(polygon.min(0)).astype(int)
        x1, y1 = np.ceil(polygon.max(0)).astype(int) + 1
        x0, y0 = max(x0, 0), max(y0, 0)
        x1, y1 = min(x1, self.camera.width), min(y1, self.camera.height)
        if x1 <= x0 or y1 <= y0:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(mask, [np.rint(polygon - (x0, y0)).astype(np.int32)], 255, cv2.LINE_AA)
        texture = np.asarray(texture, np.float32)
        if texture.ndim == 3:
            if quad is None:
                low, high = polygon.min(0), polygon.max(0)
                quad = np.array([low, (high[0], low[1]), high, (low[0], high[1])])
            quad = (np.asarray(quad, np.float32) - (x0, y0)).astype(np.float32)
            height, width = texture.shape[:2]
            corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
            matrix = cv2.getPerspectiveTransform(corners, quad)
            texture = cv2.warpPerspective(
                texture, matrix, mask.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
            )
        fade = np.exp(-depth / self._visibility)
        colour = texture * fade + self._haze * (1 - fade)
        share = mask[..., None].astype(np.float32) / 255
        region = self.image[y0:y1, x0:x1]
        region += (colour - region) * share

    def add(self, name: str, polygon: np.ndarray, texture: np.ndarray, depth: float, quad=None) -> None:
        """`label` and `fill`."""
        self.label(name, polygon)
        self.fill(polygon, texture, depth, quad)

    def shade(self, polygon: np.ndarray, factor: float) -> None:
        """Multiplies the colours inside a polygon by `factor`: a shadow."""
        mask = np.zeros(self.image.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.rint(polygon).astype(np.int32)], 255, cv2.LINE_AA)
        self.image *= 1 - (1 - factor) * (cv2.GaussianBlur(mask, (5, 5), 0)[..., None].astype(np.float32) / 255)
