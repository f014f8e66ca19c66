# SPDX-License-Identifier: Apache-2.0
"""What makes a training useless is refused or said before its first step; on the code before, each of these trained."""

import re
from pathlib import Path
from types import SimpleNamespace

from paddle_dnl.errors import ConfigError, DataError, PaddleDnlError
from paddle_dnl.evaluation.transform_check import require_restorable
from paddle_dnl.registry import MODELS
from paddle_dnl.training import trainer

import cv2
import numpy as np
import paddle
import pytest
import tiny_training
import yaml


@pytest.fixture
def no_step(monkeypatch):
    """The first step fails the test."""
    monkeypatch.setattr(trainer.Trainer, "step", lambda *a: pytest.fail("a step was made"))


def _labels(folder: Path, change) -> None:
    for path in sorted((folder / "data").glob("label_*.png")):
        cv2.imwrite(str(path), change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)))


def _train(folder, change=None, **options):
    """Trains two steps after a change of the configuration's dict."""
    path = folder / "config.yml"
    if not path.exists():
        tiny_training.write_config(folder)
    content = yaml.safe_load(path.read_text())
    content["iters"] = 2
    if change:
        change(content)
    path.write_text(yaml.safe_dump(content))
    return tiny_training.train(folder, do_eval=True, **options)


def _classes(count):
    def change(content):
        content["model"]["num_classes"] = count
        for section in ("train_dataset", "val_dataset"):
            content[section]["num_classes"] = count

    return change


def _val(*steps):
    def change(content):
        content["val_dataset"]["transforms"] = [*steps, {"type": "Normalize"}]

    return change


def test_masks_of_0_and_255(tmp_path, no_step):
    tiny_training.write_config(tmp_path)
    _labels(tmp_path, lambda label: np.where(label > 0, 255, 0).astype(np.uint8))
    with pytest.raises(DataError, match="train_dataset: its labels hold only 0 and 255.*binary-masks"):
        _train(tmp_path, _classes(2))


def test_one_class(tmp_path, no_step):
    tiny_training.write_config(tmp_path)
    _labels(tmp_path, np.zeros_like)
    with pytest.raises(ConfigError, match="num_classes: 1 class is always right"):
        _train(tmp_path, _classes(1))


def test_no_labelled_pixel(tmp_path, no_step):
    tiny_training.write_config(tmp_path)
    _labels(tmp_path, lambda label: np.full_like(label, 255))
    with pytest.raises(DataError, match="every pixel of its labels is ignored"):
        _train(tmp_path)


def test_wrong_number_of_class_weights(tmp_path, no_step):
    def change(content):
        content["loss"]["types"] = [{"type": "CrossEntropyLoss", "weight": [1, 2]}]

    with pytest.raises(ConfigError, match=r"loss.types.0.weight: 2 class weights for 3 classes"):
        _train(tmp_path, change)


@pytest.mark.parametrize("section", ["model", "train_dataset", "val_dataset"])
def test_numbers_of_classes_disagree(tmp_path, no_step, section):
    def change(content):
        content[section]["num_classes"] = 4

    with pytest.raises(ConfigError, match="numbers of classes disagree"):
        _train(tmp_path, change)


@pytest.mark.parametrize(
    "step, message",
    [
        ({"type": "RandomHorizontalFlip"}, "RandomHorizontalFlip changes a picture in another way each time"),
        ({"type": "RandomHorizontalFlip", "prob": 1}, "RandomHorizontalFlip mirrors"),
        ({"type": "RandomPaddingCrop", "crop_size": [16, 16]}, "RandomPaddingCrop"),
        ({"type": "ResizeStepScaling"}, "ResizeStepScaling"),
        pytest.param({"type": "RandomRotation"}, "RandomRotation", marks=pytest.mark.paddleseg),
        ({"type": "RandomDistort"}, "RandomDistort"),
        pytest.param(
            {"type": "RandomCenterCrop", "retain_ratio": [0.5, 0.5]}, "RandomCenterCrop", marks=pytest.mark.paddleseg
        ),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_validation_transforms_that_cannot_be_undone(tmp_path, no_step, step, message):
    with pytest.raises(ConfigError, match=rf"val_dataset.transforms.0: {message}"):
        _train(tmp_path, _val(step))


class _Own:
    """A transform of a user: a function of the image."""

    def __init__(self, function):
        self.function = function

    def __call__(self, data):
        return {**data, "img": self.function(data["img"])}


def _equalised(image):
    order = np.argsort(image.ravel(), kind="stable")
    ranks = np.empty(order.size, np.float32)
    ranks[order] = np.linspace(0, 255, order.size)
    return ranks.reshape(image.shape)


PHOTOMETRIC = {
    "inversion": lambda image: 255 - image,
    "gamma": lambda image: 255 * (image / 255) ** 2.2,
    "contrast": lambda image: np.clip((image - 128) * -3 + 128, 0, 255),
    "channel order": lambda image: image[..., ::-1],
    "one channel": lambda image: np.repeat(image[..., 1:2], 3, 2),
    "binary": lambda image: np.where(image > 128, 0.0, 255.0),
    "stretched": lambda image: (image.max() - image) / (image.max() - image.min()),
    "standardised": lambda image: (image.mean() - image) / image.std(),
    "equalised": _equalised,
    "edges": lambda image: cv2.Laplacian(image, cv2.CV_32F),
    "blur": lambda image: cv2.GaussianBlur(image, (0, 0), 3),
    "clahe": lambda image: np.repeat(cv2.createCLAHE(4).apply(image[..., 0].astype(np.uint8))[..., None], 3, 2),
    "constant": lambda image: np.zeros_like(image),
}
GEOMETRIC = {
    "mirrored": lambda image: image[:, ::-1],
    "upside down": lambda image: image[::-1],
    "turned by 180": lambda image: image[::-1, ::-1],
    "mirrored and inverted": lambda image: 255 - image[:, ::-1],
    "transposed to the same size": lambda image: cv2.resize(image.transpose(1, 0, 2), image.shape[1::-1]),
    "turned by 90 to the same size": lambda image: cv2.resize(np.rot90(image).copy(), image.shape[1::-1]),
    "turned by 15": lambda image: cv2.warpAffine(image, cv2.getRotationMatrix2D((65, 48), 15, 1), image.shape[1::-1]),
}


def _checked(*functions):
    require_restorable(SimpleNamespace(transforms=SimpleNamespace(transforms=[_Own(f) for f in functions])))


@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_changes_of_colours_pass(name):
    _checked(PHOTOMETRIC[name], PHOTOMETRIC["inversion"])


@pytest.mark.parametrize("name", GEOMETRIC)
def test_changes_of_geometry_are_refused(name):
    for before in ([], [PHOTOMETRIC["inversion"]], [PHOTOMETRIC["binary"]]):
        with pytest.raises(ConfigError, match=rf"transforms.{len(before)}: _Own mirrors or turns pictures"):
            _checked(*before, GEOMETRIC[name])


def test_validation_transforms_that_can(tmp_path):
    steps = [
        {"type": "Resize", "target_size": [30, 20]},
        {"type": "Padding", "target_size": [32, 32], "im_padding_value": 0},
    ]
    _train(tmp_path, _val(*steps))


def test_a_normalisation_of_another_scale_is_said(tmp_path, said):
    def change(content):
        for section in ("train_dataset", "val_dataset"):
            steps = [step for step in content[section]["transforms"] if step["type"] != "Normalize"]
            content[section]["transforms"] = [*steps, normalize]

    normalize = {"type": "Normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    _train(tmp_path, change)
    assert "looks like colours" not in said()
    normalize["mean"] = [123.675, 116.28, 103.53]
    _train(tmp_path, change)
    assert "val_dataset.transforms.0.mean: [123.675, 116.28, 103.53] looks like colours in 0..255" in said()
    assert (
        re.search(r"train_dataset.transforms.\d.mean: .* divide mean and std by 255", said()) and ".std:" not in said()
    )
    normalize["std"] = [58.395, 57.12, 57.375]
    _train(tmp_path, change)
    assert "val_dataset.transforms.0.std: [58.395, 57.12, 57.375] looks like" in said()


def test_what_is_said(tmp_path, said):
    def change(content):
        content["train_dataset"]["transforms"] = [{"type": "RandomPaddingCrop", "crop_size": [24, 24]}]
        steps = [
            {"type": "Normalize"},
            {"type": "Padding", "target_size": [64, 24]},
            {"type": "Resize", "target_size": [24, 24]},
        ]
        content["val_dataset"]["transforms"] = steps
        for section in ("train_dataset", "val_dataset"):
            content[section]["class_names"] = ["sand", "water", "sky"]

    tiny_training.write_config(tmp_path)
    _labels(tmp_path, lambda label: np.where(label > 0, np.where(label == 2, 255, label), 255).astype(np.uint8))
    _train(tmp_path, change)
    for text in (
        "train_dataset.transforms: no Normalize",
        "normalise pictures differently",
        "val_dataset.transforms.1: Padding pads with 127.5 after Normalize",
        "val_dataset: Resize squashes pictures of 64x24 to 24x24",
        "train_dataset: 8 images (all 24x24); water 100.0 %",
        "train_dataset: no pixel of sand, sky; the model cannot learn",
        "% of its pixels are ignored (255)",
        "val_dataset: 3 of its 3 images are in train_dataset too",
    ):
        assert text in said(), text


def test_an_ignored_class_and_absolute_paths_are_said(tmp_path, said):
    def change(content):
        for section in ("train_dataset", "val_dataset"):
            content[section]["ignore_index"] = 2
            content[section]["class_names"] = ["sand", "water", "sky"]

    tiny_training.write_config(tmp_path)
    listed = (tmp_path / "data" / "train.txt").read_text()
    first = tmp_path / "data" / "image_7.png"
    (tmp_path / "data" / "train.txt").write_text(listed.replace("image_7.png", str(first)))
    _train(tmp_path, change)
    assert "train_dataset: ignore_index 2 is the class sky too, whose pixels do not count" in said()
    assert f"train.txt: holds absolute paths such as {first}; they are read as they are" not in said()  # below the root
    outside = tmp_path / "elsewhere.png"
    first.rename(outside)
    (tmp_path / "data" / "train.txt").write_text(listed.replace("image_7.png", str(outside)))
    _train(tmp_path, save_dir=str(tmp_path / "second"))
    assert (
        f"train.txt: holds absolute paths such as {outside}; they are read as they are, without dataset_root" in said()
    )


@MODELS.add_component
class PooledNet(tiny_training.TinyNet):
    """Batch normalisation of the picture's mean; refuses widths that are no multiple of 8, as some networks do."""

    def __init__(self, num_classes, outputs=None):
        super().__init__(outputs or num_classes)
        self.norm = paddle.nn.BatchNorm2D(8)
        self.pooled = outputs is None

    def forward(self, x):
        if x.shape[3] % 8:
            raise ValueError(f"width {x.shape[3]} is no multiple of 8")
        x = self.conv(x)
        if self.pooled:
            x = x + self.norm(paddle.nn.functional.adaptive_avg_pool2d(x, 1))
        return [self.cls(x), self.aux(x)] if self.training else [self.cls(x)]


def test_a_batch_of_one_with_batch_norm_of_single_values(tmp_path, no_step):
    def change(content):
        content["model"] = {"type": "PooledNet"}
        content["batch_size"] = 1

    with pytest.raises(ConfigError, match="batch_size: 1 gives the batch normalisation norm one value per channel"):
        _train(tmp_path, change)
    with pytest.raises(ConfigError, match="batch normalisation norm"):
        tiny_training.train(tmp_path, do_eval=False)


def test_sizes_and_classes_that_only_the_evaluation_would_meet(tmp_path, no_step):
    def change(content):
        content["model"] = {"type": "PooledNet"}
        content["val_dataset"]["transforms"] = [{"type": "Resize", "target_size": [20, 20]}, {"type": "Normalize"}]

    with pytest.raises(DataError, match="image_0.png was tried before training and failed: ValueError: width 20"):
        _train(tmp_path, change)

    def change(content):
        content["model"] = {"type": "PooledNet", "outputs": 2}
        content["val_dataset"]["transforms"] = [{"type": "Normalize"}]

    with pytest.raises(DataError, match="the model gives 2 classes, the dataset has num_classes 3"):
        _train(tmp_path, change)


def test_an_evaluation_that_fails_costs_no_steps(tmp_path, monkeypatch):
    calls = []

    def fails(*args, **more):
        calls.append(more)
        raise DataError("the evaluation failed")

    monkeypatch.setattr(trainer, "evaluate", fails)
    with pytest.raises(PaddleDnlError, match="the evaluation failed"):
        _train(tmp_path)
    assert len(calls) == 1 and (tmp_path / "output" / "iter_2" / "manifest.json").is_file()
    monkeypatch.undo()
    progress = _train(tmp_path, resume_model="auto")
    assert progress.best_miou > 0 and (tmp_path / "output" / "best_model").is_dir()
