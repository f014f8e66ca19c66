# SPDX-License-Identifier: Apache-2.0
"""`configs new`: a commented configuration for the user's data, with crop and batch chosen for the free memory."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from paddle_dnl.config.reading import to_yaml
from paddle_dnl.data.classes import FILE_NAME, read_classes
from paddle_dnl.data.images.bands import require_finite
from paddle_dnl.data.images.image_format import read_as_stored
from paddle_dnl.data.images.list_files import lines, names_of
from paddle_dnl.data.prepare.import_note import require_complete
from paddle_dnl.data.statistics import suggest_crop
from paddle_dnl.errors import DataError, UsageError

import numpy as np

_READ = 50  # pictures that are read, at most
_SSLD = "https://bj.bcebos.com/paddleseg/dygraph"


@dataclass(frozen=True)
class ModelChoice:
    """A model that `configs new` offers.

    Attributes:
        section: the `model` section.
        start: address of ImageNet weights for its backbone, or None: trained from random weights.
        bytes_per_pixel: of a training step for each pixel of a batch, to choose the batch; from the measured 3.4 GB of a step of
            DNLNet-R50 on 1024x512 pixels, scaled by the width of the maps.
    """

    section: dict
    start: str | None
    bytes_per_pixel: int


def _model(kind: str, depth: int, stride: int, **more) -> dict:
    suffix = "_vd" if depth > 18 else ""
    backbone = {"type": f"ResNet{depth}{suffix}", "output_stride": stride}
    if not suffix:
        backbone["stem"] = "vd"
    return {"type": kind, "backbone": backbone, **more}


MODELS = {
    "dnlnet_resnet18": ModelChoice(_model("DNLNet", 18, 16, dialect="mmseg"), None, 2_000),
    "dnlnet_resnet50": ModelChoice(_model("DNLNet", 50, 8), f"{_SSLD}/resnet50_vd_ssld_v2.tar.gz", 6_000),
    "dnlnet_resnet101": ModelChoice(_model("DNLNet", 101, 8), f"{_SSLD}/resnet101_vd_ssld.tar.gz", 9_000),
    "dmnet_resnet50": ModelChoice(_model("DMNet", 50, 8), f"{_SSLD}/resnet50_vd_ssld_v2.tar.gz", 6_000),
    "dmnet_resnet101": ModelChoice(_model("DMNet", 101, 8), f"{_SSLD}/resnet101_vd_ssld.tar.gz", 9_000),
}


def choose_batch(free: int | None, crop: list[int], bytes_per_pixel: int, images: int) -> int:
    """Samples per step that fit two thirds of the free memory, from 2 to 8, and no more than there are images."""
    fits = 4 if free is None else int(free * 2 / 3 / (crop[0] * crop[1] * bytes_per_pixel))
    return max(2, min(8, fits, images))


@dataclass(frozen=True)
class _Picture:
    """Size, bands and values of a picture as it is stored."""

    path: Path
    size: tuple[int, int]  # width, height
    bands: int
    dtype: np.dtype
    low: float
    high: float

    @classmethod
    def of(cls, path: Path) -> "_Picture":
        image = read_as_stored(path)
        require_finite(image, path)
        bands = 1 if image.ndim == 2 else image.shape[2]
        size = (image.shape[1], image.shape[0])
        return cls(path, size, bands, image.dtype, float(image.min()), float(image.max()))


def _value_range(pictures: list[_Picture]) -> list[float]:
    """From 0 to 1, 255, 1023, 4095, 16383 or 65535, the first that contains all values; else the range of the values."""
    low, high = min(picture.low for picture in pictures), max(picture.high for picture in pictures)
    tops = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)
    top = next((top for top in tops if low >= 0 and high <= top), None)
    return [low, high] if top is None else [0, top]


def _image_format(pictures: list[_Picture]) -> dict:
    """`img_channels` and `value_range` that pictures other than 8-bit ones of one or three bands need, a guess from some.

    Raises:
        DataError: 8-bit pictures beside others of another scale, for which there is no one `value_range`.
    """
    bands = pictures[0].bands
    plain = [picture for picture in pictures if picture.dtype == np.uint8]
    others = [picture for picture in pictures if picture.dtype != np.uint8]
    if not others and bands in (1, 3):
        return {}
    wanted: dict = {"img_channels": bands}
    if others:
        wanted["value_range"] = found = _value_range(others)
        if plain and found != [0, 255]:
            raise DataError(
                f"{plain[0].path} has 8 bits, {others[0].path} holds {others[0].dtype} up to {others[0].high:g}; one value_range "
                "holds for all pictures of a dataset: convert them to one depth first"
            )
    return wanted


def _listed(path: Path) -> list[Path]:
    if not path.is_file():
        raise UsageError(f"{path}: no such list; `paddle-dnl data split {path.parent}` writes it")
    found = [Path(names_of(line, path.parent, "\t", labelled=False)[0]) for _, line in lines(path)]
    if not found:
        raise DataError(f"{path}: lists no pictures; `paddle-dnl data split {path.parent}` writes it")
    return found


def make_config(root: Path, model: str, free: int | None) -> str:
    """The text of the configuration.

    Args:
        root: folder with `train.txt`, `val.txt` and `classes.txt`, as `data import` and `data split` write them.
        model: one of `MODELS`.
        free: bytes of memory that a training may take, or None.

    Raises:
        UsageError: an unknown model, or a list or `classes.txt` is missing.
        DataError: an image that cannot be read, or images of different depths, or an import that is
            incomplete.
    """
    if model not in MODELS:
        raise UsageError(f"--model {model}: there is none of that name; there are {', '.join(MODELS)}")
    if not root.is_dir():
        raise UsageError(f"--data {root}: no such folder")
    require_complete(root)
    if not (root / FILE_NAME).is_file():
        raise UsageError(
            f"{root}: has no {FILE_NAME}; `paddle-dnl data import` writes it, one `name red green blue` per line"
        )
    choice, classes = MODELS[model], read_classes(root / FILE_NAME)
    train, val = _listed(root / "train.txt"), _listed(root / "val.txt")
    pictures = [_Picture.of(root / path) for path in train[:: -(-len(train) // _READ)]]
    crop = suggest_crop(Counter(picture.size for picture in pictures))
    batch = choose_batch(free, crop, choice.bytes_per_pixel, len(train))
    iters = max(1000, min(40_000, 100 * len(train) // batch // 500 * 500))
    # Class names stay in one place, classes.txt; the configuration finds it beside the lists.
    names = ", ".join(f"{i} {name}" for i, name in enumerate(classes.names))
    image_format = _image_format(pictures)
    data = {"type": "Dataset", "dataset_root": str(root), "separator": "\t", "num_classes": len(classes.names)}
    if classes.ignore_index not in (None, 255):
        data["ignore_index"] = classes.ignore_index
    data |= image_format
    val_section = {**data, "val_path": str(root / "val.txt"), "mode": "val", "transforms": [{"type": "Normalize"}]}
    parts = [
        (
            [
                f"# {model} on {root}: {len(train)} images to train on, {len(val)} to validate; classes {names}.",
                "#   paddle-dnl data preview THIS_FILE        the pictures as the network will see them",
                "#   paddle-dnl train --config THIS_FILE --do_eval --save_dir output/mine",
                f"# batch_size: an estimate, {choice.bytes_per_pixel} bytes per pixel of a batch, from the memory that was free.",
            ],
            {"batch_size": batch},
        ),
        ([f"# Optimizer steps: each image about {round(iters * batch / len(train))} times."], {"iters": iters}),
        (
            [
                f"# Names and colours of the classes are in {FILE_NAME}; the number of classes goes from here to the model.",
                "# crop_size: of the median picture; the last size that every sample of a batch gets.",
                *(
                    ["# value_range: the numbers that become 0 and 255, a guess from some pictures."]
                    if image_format
                    else []
                ),
            ],
            {
                "train_dataset": {
                    **data,
                    "train_path": str(root / "train.txt"),
                    "mode": "train",
                    "transforms": _steps(crop, image_format.get("img_channels", 3)),
                }
            },
        ),
        (["# Nothing that cannot be undone: scores are those of whole pictures."], {"val_dataset": val_section}),
        *_recipe(choice, iters),
    ]
    return "\n".join("\n".join([*comments, to_yaml(content)]) for comments, content in parts)


def _steps(crop: list[int], bands: int) -> list[dict]:
    """Training transforms: scale, crop, flip, colours where there are some, normalisation."""
    steps = [
        {"type": "ResizeStepScaling", "min_scale_factor": 0.5, "max_scale_factor": 2.0, "scale_step_size": 0.25},
        {"type": "RandomPaddingCrop", "crop_size": crop},
        {"type": "RandomHorizontalFlip"},
        {"type": "RandomDistort", "brightness_range": 0.4, "contrast_range": 0.4, "saturation_range": 0.4},
        {"type": "Normalize"},
    ]
    return [step for step in steps if bands in (1, 3) or step["type"] != "RandomDistort"]


def _recipe(choice: ModelChoice, iters: int) -> list[tuple[list[str], dict]]:
    """Comments and sections of optimizer, schedule, losses and model."""
    section = {**choice.section, "backbone": dict(choice.section["backbone"])}
    start = ["# Trained from random weights."]
    optimizer, rate = {"type": "AdamW", "weight_decay": 0.01}, 0.001
    if choice.start is not None:
        section["backbone"]["pretrained"] = choice.start
        optimizer, rate = {"type": "SGD", "momentum": 0.9, "weight_decay": 4e-5}, 0.01
        start = [
            "# Start weights (ImageNet) are fetched at the first run; without a network:",
            "#   --opts model.backbone.pretrained=FILE, or =null for random weights.",
        ]
    schedule = {"type": "PolynomialDecay", "learning_rate": rate, "end_lr": 0, "power": 0.9}
    schedule |= {"warmup_iters": max(1, iters // 20), "warmup_start_lr": 1e-5}
    coefficients = ["# One factor for the main output and one for the auxiliary one of training."]
    return [
        ([], {"optimizer": optimizer, "lr_scheduler": schedule}),
        (coefficients, {"loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1, 0.4]}}),
        (start, {"model": section}),
    ]
