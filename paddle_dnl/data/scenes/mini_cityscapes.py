# SPDX-License-Identifier: Apache-2.0
"""Mini-Cityscapes: generated street scenes in Cityscapes' folder structure, as a dataset that needs no download.

    paddle-dnl data mini-cityscapes --out data/mini_cityscapes --train 64 --val 16 --size 512x256 --seed 0

Writes `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` and `gtFine/SPLIT/CITY/*_gtFine_polygons.json`, as in Cityscapes;
`paddle-dnl data convert-cityscapes` then makes the label pictures. The validation city is none of the training cities.
"""

import json
import re
from pathlib import Path

from paddle_dnl.data.scenes.scene import draw_scene
from paddle_dnl.errors import DataError
from paddle_dnl.files.atomic import write_bytes
from paddle_dnl.files.outputs import check_outputs
from paddle_dnl.files.reading import parse_json, read_bytes
from paddle_dnl.log import logger, progress

import cv2
import numpy as np

CITIES = {"train": ("altstadt", "birkenau", "clausdorf"), "val": ("dornhafen",)}
SETTINGS = "mini_cityscapes.json"
# To be raised whenever a change of the code gives other pictures for the same seed.
_VERSION = 1
_SMALLEST = 64
# Endings of the pictures and of all files that are made from them.
_ENDINGS = re.compile(r"_(leftImg8bit|gtFine_\w+)\.(png|json)$")


def _files(out: Path, split: str, index: int) -> tuple[Path, Path]:
    """Paths of a scene's picture and polygons."""
    city = CITIES[split][index % len(CITIES[split])]
    stem = f"{city}_{index:06d}_000019"
    return (
        out / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png",
        out / "gtFine" / split / city / f"{stem}_gtFine_polygons.json",
    )


def _generate(out: Path, settings: dict) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out}: is a file; give a folder")
    train, val, size = settings["train"], settings["val"], tuple(settings["size"])
    scenes = [("train", i) for i in range(train)] + [("val", i) for i in range(val)]
    note = out / SETTINGS
    if note.exists():  # written last: the dataset was completed once
        try:
            noted = parse_json(read_bytes(note))
        except ValueError:
            raise DataError(f"{note}: cannot be read; remove it, or give another folder than --out {out}") from None
        if noted != settings:
            raise DataError(f"--out {out}: holds scenes of other settings ({noted}); remove it or give another folder")
        scenes = [scene for scene in scenes if not all(path.is_file() for path in _files(out, *scene))]
        if not scenes:
            logger.info(f"{out}: already there")
            return
        logger.warning(f"{out}: {len(scenes)} of {train + val} scenes are missing and are drawn again")
    else:
        # Pictures that are not overwritten, of another dataset or a larger run that was broken off, would be read as part of it.
        own_stems = {_ENDINGS.sub("", str(path)) for scene in scenes for path in _files(out, *scene)}
        for path in [*sorted((out / "leftImg8bit").rglob("*")), *sorted((out / "gtFine").rglob("*"))]:
            if _ENDINGS.search(path.name) and _ENDINGS.sub("", str(path)) not in own_stems:
                raise DataError(f"--out {out}: {path} is not of this dataset; remove the tree or give another folder")
    check_outputs([note], [], root=out)
    for split, index in progress(scenes, "street scenes"):
        width, height = size
        rng = np.random.default_rng([settings["seed"], ("train", "val").index(split), index])
        picture, objects = draw_scene(rng, width, height)
        image_path, polygons_path = _files(out, split, index)
        _, encoded = cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])
        polygons = {"imgHeight": height, "imgWidth": width, "objects": objects}
        write_bytes(polygons_path, json.dumps(polygons).encode())
        write_bytes(image_path, encoded.tobytes())
    write_bytes(note, json.dumps(settings).encode())
    logger.info(f"{out}: {train} training and {val} validation scenes of {size[0]}x{size[1]}")


def generate(
    out: str | Path,
    train: int = 64,
    val: int = 16,
    size: tuple[int, int] = (512, 256),
    seed: int = 0,
) -> Path:
    """Writes the dataset, unless it exists already.

    Scenes that are missing in a complete dataset are drawn again, with a warning.

    Args:
        out: output folder, created if needed.
        train, val: number of images.
        size: (width, height) in pixels.
        seed: the same seed gives the same files, byte for byte.

    Raises:
        DataError: invalid numbers, or the folder contains other files or is not writable.
    """
    try:
        width, height = size
    except (TypeError, ValueError):
        raise DataError(f"--size {size!r}: give (width, height), for instance (512, 256)") from None
    for flag, value in (("train", train), ("val", val), ("size", width), ("size", height), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise DataError(f"--{flag}: {value!r} is not a whole number")
    if train < 0 or val < 0 or train + val == 0:
        raise DataError(f"--train {train} --val {val}: give the number of images, at least one in all")
    if min(width, height) < _SMALLEST:
        raise DataError(f"--size {width}x{height}: both sides must be at least {_SMALLEST}")
    if seed < 0:
        raise DataError(f"--seed {seed}: must not be negative")
    settings = {
        "version": _VERSION,
        "train": int(train),
        "val": int(val),
        "size": [int(width), int(height)],
        "seed": int(seed),
    }
    try:
        _generate(Path(out), settings)
    except OSError as error:
        raise DataError(f"--out {out}: {error.strerror or error} ({error.filename}); give another folder") from error
    return Path(out)
