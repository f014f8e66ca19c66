# SPDX-License-Identifier: Apache-2.0
"""Annotated pictures for the data tools: shapes on a ground, and the same as labelme, COCO and CVAT files."""

import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw

NAMES = ("background", "box", "disc")
COLORS = {"background": (90, 90, 90), "box": (200, 40, 40), "disc": (40, 60, 210)}
SIZE = (64, 48)  # width, height


def shapes(seed: int) -> list[tuple[str, list[list[float]]]]:
    """Two or three polygons, later over earlier."""
    rng = np.random.default_rng(seed)
    found = []
    for name in ("box", "disc", "box")[: 2 + seed % 2]:
        x, y, side = rng.uniform(8, 40), rng.uniform(6, 26), rng.uniform(10, 18)
        points = [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]
        if name == "disc":
            angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            points = [[x + side / 2 * (1 + np.cos(a)), y + side / 2 * (1 + np.sin(a))] for a in angles]
        found.append((name, [[round(float(v), 2) for v in point] for point in points]))
    return found


def truth(seed: int) -> np.ndarray:
    """The label `[H, W]` as Pillow paints it, which is labelme's rule."""
    label = Image.new("L", SIZE, 0)
    for name, points in shapes(seed):
        ImageDraw.Draw(label).polygon([tuple(p) for p in points], fill=NAMES.index(name), outline=NAMES.index(name))
    return np.array(label)


def picture(seed: int) -> np.ndarray:
    """BGR, uint8, with noise."""
    table = np.array([COLORS[name] for name in NAMES], np.float64)
    noise = np.random.default_rng(seed).normal(0, 6, (SIZE[1], SIZE[0], 3))
    return np.clip(table[truth(seed)][..., ::-1] + noise, 0, 255).astype(np.uint8)


def write_labelme(folder: Path, count: int) -> Path:
    """`count` pictures and labelme files."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        cv2.imwrite(str(folder / f"scene_{seed:02d}.jpg"), picture(seed), [cv2.IMWRITE_JPEG_QUALITY, 95])
        entries = [
            {"label": name, "points": points, "group_id": None, "shape_type": "polygon", "flags": {}}
            for name, points in shapes(seed)
        ]
        content = {
            "version": "5.4.1", "flags": {}, "shapes": entries, "imagePath": f"scene_{seed:02d}.jpg", "imageData": None,
            "imageHeight": SIZE[1], "imageWidth": SIZE[0],
        }  # fmt: skip
        (folder / f"scene_{seed:02d}.json").write_text(json.dumps(content))
    return folder


def write_coco(folder: Path, count: int) -> Path:
    """`images/` and `annotations.json`; the second annotation of each picture is in run lengths."""
    from pycocotools import mask as coco_mask

    content = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "disc"}, {"id": 3, "name": "box"}]}
    numbers = {"disc": 7, "box": 3}
    (folder / "images").mkdir(parents=True)
    for seed in range(count):
        cv2.imwrite(str(folder / "images" / f"{seed}.png"), picture(seed))
        content["images"].append({"id": seed, "file_name": f"{seed}.png", "width": SIZE[0], "height": SIZE[1]})
        for i, (name, points) in enumerate(shapes(seed)):
            segmentation = [[v for point in points for v in point]]
            if i == 1:
                segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, SIZE[1], SIZE[0]))
                segmentation["counts"] = segmentation["counts"].decode()
            entry = {"id": len(content["annotations"]), "image_id": seed, "category_id": numbers[name]}
            content["annotations"].append(entry | {"segmentation": segmentation, "iscrowd": 0})
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def write_cvat(folder: Path, count: int) -> Path:
    """`images/` and `annotations.xml`, shapes listed in the wrong order but with z_order."""
    (folder / "images").mkdir(parents=True)
    lines = ["<annotations><meta><task><labels>"]
    for name in ("box", "disc"):
        color = "#" + "".join(f"{v:02x}" for v in COLORS[name])
        lines.append(f"<label><name>{name}</name><color>{color}</color></label>")
    lines.append("</labels></task></meta>")
    for seed in range(count):
        cv2.imwrite(str(folder / "images" / f"{seed}.png"), picture(seed))
        lines.append(f'<image id="{seed}" name="{seed}.png" width="{SIZE[0]}" height="{SIZE[1]}">')
        for order, (name, points) in reversed(list(enumerate(shapes(seed)))):
            text = ";".join(f"{x},{y}" for x, y in points)
            lines.append(f'<polygon label="{name}" points="{text}" z_order="{order}"></polygon>')
        lines.append("</image>")
    (folder / "annotations.xml").write_text("\n".join([*lines, "</annotations>"]))
    return folder
