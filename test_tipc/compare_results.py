# SPDX-License-Identifier: Apache-2.0
"""Compares the label pictures that inference saved with the stored scores of an earlier run.

    python test_tipc/compare_results.py CONFIG MODE [FOLDER ...]   compare, status 1 when a score is off
    python test_tipc/compare_results.py CONFIG MODE --update       store the scores of the run that is there

FOLDER is a folder of label pictures; without one, all that the last run in MODE left are compared.

Scores are computed here from the pictures and the ground truth, with NumPy alone, so that a fault of the package's own
evaluation does not hide itself. Stored files are test_tipc/results/<model>/<config>.<mode>.txt, one `metric:value` per
line; a line `rtol:` or `atol:` in it replaces the tolerance.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tipc_config import MODES, TipcConfig, TipcError

RESULTS = Path("test_tipc/results")
OUTPUT = Path("test_tipc/output")
TOLERANCE = {"rtol": 1e-3, "atol": 1e-3}
IGNORED = 255


def dataset_list(images: Path) -> Path:
    """`val.txt` of the data set that a folder of validation pictures belongs to.

    Raises:
        TipcError: no parent folder has one.
    """
    for parent in images.parents:
        if (parent / "val.txt").is_file():
            return parent / "val.txt"
    raise TipcError(f"{images}: no val.txt in the folders above; run test_tipc/prepare.sh first")


def scores(predictions: Path, images: Path) -> dict[str, float]:
    """mIoU over classes that occur, pixel accuracy, Cohen's kappa and the number of pictures.

    Args:
        predictions: folder of label pictures, as infer.py lays them out.
        images: the folder that inference read.

    Raises:
        TipcError: a picture is missing or its size is not that of its ground truth.
    """
    listing = dataset_list(images)
    counts = np.zeros((256, 256), np.int64)
    number = 0
    for line in listing.read_text(encoding="utf-8").splitlines():
        image, label = (listing.parent / part for part in line.split(","))
        if not image.is_relative_to(images):
            continue
        # Below the picture's own sub-folder where names of pictures collide, else flat.
        places = [predictions / image.relative_to(images), predictions / image.name]
        file = next((p.with_suffix(".png") for p in places if p.with_suffix(".png").is_file()), None)
        if file is None:
            file = places[1].with_suffix(".png")
            raise TipcError(f"{file}: inference has not written this label picture")
        truth, found = np.asarray(Image.open(label)), np.asarray(Image.open(file))
        if truth.shape != found.shape:
            raise TipcError(f"{file}: size {found.shape[::-1]}, its ground truth has {truth.shape[::-1]}")
        valid = truth != IGNORED
        counts += np.bincount(truth[valid] * np.int64(256) + found[valid], minlength=65536).reshape(256, 256)
        number += 1
    total = counts.sum()
    if not total:
        raise TipcError(f"{listing}: names no labelled picture below {images}")
    right, truth_area, found_area = np.diag(counts), counts.sum(1), counts.sum(0)
    union = truth_area + found_area - right
    accuracy = right.sum() / total
    chance = (truth_area / total) @ (found_area / total)
    return {
        "images": number,
        "mIoU": float((right[union > 0] / union[union > 0]).mean()),
        "Acc": float(accuracy),
        "Kappa": float((accuracy - chance) / (1 - chance)) if chance < 1 else 0.0,
    }


def read_stored(path: Path) -> dict[str, float]:
    """The `metric:value` lines of a file; blank lines and lines that start with # do not count.

    Raises:
        TipcError: a line is not `metric:number`.
    """
    stored = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        key, _, value = line.partition(":")
        try:
            stored[key.strip()] = float(value)
        except ValueError as error:
            raise TipcError(f"{path}:{number}: {line!r} is not metric:value") from error
    return stored


def compare(found: dict[str, float], stored: dict[str, float]) -> list[str]:
    """One line for every stored score that `found` misses by more than atol + rtol * |stored|."""
    limits = {key: stored.get(key, value) for key, value in TOLERANCE.items()}
    wrong = []
    for key, value in stored.items():
        if key in TOLERANCE:
            continue
        # Written so that a NaN counts as wrong.
        if key not in found or not abs(found[key] - value) <= limits["atol"] + limits["rtol"] * abs(value):
            value_found = f"{found[key]:.6g}" if key in found else "missing"
            wrong.append(f"{key}: {value_found}, stored {value}, tolerance {limits}")
    return wrong


def stored_path(config: TipcConfig, mode: str) -> Path:
    """Where the scores of a configuration in a mode are stored."""
    return RESULTS / config.model_name / f"{Path(config.path).stem}.{mode}.txt"


def write_stored(path: Path, found: dict[str, float]) -> None:
    """Stores scores; tolerances and comments of a file that is there stay."""
    kept = []
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.startswith("#") or line.partition(":")[0] in TOLERANCE]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(kept + [f"{key}:{value:.6g}" for key, value in found.items()]) + "\n", encoding="utf-8")


def main(argv: list[str]) -> int:
    """`compare_results.py CONFIG MODE [--update]`; 0: all scores agree, 1: not, 2: nothing to compare."""
    parser = argparse.ArgumentParser(description="Compares saved label pictures with stored scores.")
    parser.add_argument("config")
    parser.add_argument("mode", choices=MODES[:4])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--update", action="store_true", help="store the scores of the run that is there")
    args = parser.parse_args(argv)
    try:
        config = TipcConfig(args.config)
        images = Path(config.line(48 if args.mode == "whole_infer" else 12).value)
        folders = args.folders or sorted((OUTPUT / config.model_name / args.mode).glob("python_infer_*_results"))
        if not folders:
            raise TipcError(f"{OUTPUT / config.model_name / args.mode}: no results of inference; run the chain first")
        path = stored_path(config, args.mode)
        if args.update:
            write_stored(path, scores(folders[0], images))
        if not path.is_file():
            raise TipcError(f"{path}: no stored scores; make them with --update")
        stored = read_stored(path)
        wrong = 0
        for folder in folders:
            found = scores(folder, images)
            problems = compare(found, stored)
            wrong += bool(problems)
            print(f"{folder.name}: " + " ".join(f"{key} {value:.6g}" for key, value in found.items()))
            print("\n".join(f"    {problem}" for problem in problems) if problems else f"    agrees with {path}")
    except TipcError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
