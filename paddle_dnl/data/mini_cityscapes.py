"""Mini-Cityscapes: generated street scenes in the Cityscapes folder tree, so that nothing has to be downloaded.

    python -m paddle_dnl.data.mini_cityscapes --out data/mini_cityscapes --train 64 --val 16 --size 512x256 --seed 0

Writes `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` and `gtFine/SPLIT/CITY/*_gtFine_polygons.json` as the original has them;
`tools/data/convert_cityscapes.py` then makes the label pictures. The training cities and the validation city differ.
"""

import argparse
import io
import json
import os
import re
import sys
from pathlib import Path

from paddle_dnl.data.street_scenes import draw_scene
from paddle_dnl.errors import DataError, PaddleDnlError
from paddle_dnl.log import logger, progress

import numpy as np
from PIL import Image

CITIES = {"train": ("altstadt", "birkenau", "clausdorf"), "val": ("dornhafen",)}
SETTINGS = "mini_cityscapes.json"
# Raised whenever the same seed draws other pictures.
_VERSION = 1
_SMALLEST = 64


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _write_scene(out: Path, split: str, index: int, size: tuple[int, int], seed: int) -> None:
    """One picture and its polygons; both depend on nothing but the arguments."""
    width, height = size
    rng = np.random.default_rng([seed, ("train", "val").index(split), index])
    picture, objects = draw_scene(rng, width, height)
    city = CITIES[split][index % len(CITIES[split])]
    stem = f"{city}_{index:06d}_000019"
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", compress_level=3)
    polygons = {"imgHeight": height, "imgWidth": width, "objects": objects}
    _write(out / "gtFine" / split / city / f"{stem}_gtFine_polygons.json", json.dumps(polygons).encode())
    _write(out / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", buffer.getvalue())


def generate(
    out: str | Path,
    train: int = 64,
    val: int = 16,
    size: tuple[int, int] = (512, 256),
    seed: int = 0,
) -> Path:
    """Writes the dataset; does nothing when the same one is already there.

    Args:
        out: folder, made if needed.
        train, val: number of images.
        size: (width, height) in pixels.
        seed: the same seed gives the same files, byte for byte.

    Raises:
        DataError: unusable numbers, or a folder that holds something else.
    """
    out = Path(out)
    if train < 0 or val < 0 or train + val == 0:
        raise DataError(f"--train {train} --val {val}: give the number of images, at least one in all")
    if min(size) < _SMALLEST:
        raise DataError(f"--size {size[0]}x{size[1]}: both sides must be at least {_SMALLEST}")
    if seed < 0:
        raise DataError(f"--seed {seed}: must not be negative")
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out}: is a file; give a folder")
    settings = {"version": _VERSION, "train": train, "val": val, "size": list(size), "seed": seed}
    note = out / SETTINGS
    if note.exists():
        if json.loads(note.read_text()) == settings:
            logger.info(f"{out}: already there")
            return out
        raise DataError(f"--out {out}: holds scenes of other settings; remove it or give another folder")
    if (out / "leftImg8bit").exists() and any((out / "gtFine").glob("*/*/*_gtFine_color.png")):
        raise DataError(f"--out {out}: holds another Cityscapes tree; give another folder")
    scenes = [("train", i) for i in range(train)] + [("val", i) for i in range(val)]
    for split, index in progress(scenes, "street scenes"):
        _write_scene(out, split, index, size, seed)
    _write(note, json.dumps(settings).encode())
    logger.info(f"{out}: {train} training and {val} validation scenes of {size[0]}x{size[1]}")
    return out


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT, for instance 512x256, got {text!r}")
    return int(match[1]), int(match[2])


def main(argv=None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Generates street scenes in the Cityscapes folder tree.")
    parser.add_argument("--out", required=True, help="folder of the dataset")
    parser.add_argument("--train", type=int, default=64, help="number of training images")
    parser.add_argument("--val", type=int, default=16, help="number of validation images")
    parser.add_argument("--size", type=_size, default=(512, 256), metavar="WIDTHxHEIGHT")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        generate(args.out, args.train, args.val, args.size, args.seed)
    except PaddleDnlError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
