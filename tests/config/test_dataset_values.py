# SPDX-License-Identifier: Apache-2.0
"""One ignored label and one list of class names: from the dataset into transforms, losses, exports and quantisation."""

from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.cli.deploy import quantize
from paddle_dnl.config import Config
from paddle_dnl.data.classes import class_info, classes_of, classes_of_config, classes_text, read_classes
from paddle_dnl.data.label_rule import label_rule
from paddle_dnl.deployment.export.exporter import export_model
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.errors import ConfigError, DataError

import cv2
import numpy as np
import pytest
import yaml
from tiny_export import CLASSES, NORMALIZE, ColorNet, blocks
from tiny_onnx import attention_net
from tiny_training import train, write_config

IGNORED = 3
STEPS = [
    {"type": "RandomScaleAspect", "min_scale": 0.5},
    {"type": "RandomRotation", "max_rotation": 20},
    {"type": "ResizeStepScaling", "min_scale_factor": 0.5, "max_scale_factor": 1.0, "scale_step_size": 0.25},
    {"type": "RandomPaddingCrop", "crop_size": [32, 32], "category_max_ratio": 0.75},
    {"type": "Normalize"},
    {"type": "Padding", "target_size": [40, 40]},
]


def _config(folder: Path, **dataset) -> Path:
    """The tiny training's configuration with keys added to both datasets."""
    path = write_config(folder)
    content = yaml.safe_load(path.read_text())
    for section in ("train_dataset", "val_dataset"):
        content[section] |= dataset
    content["train_dataset"]["transforms"] = STEPS
    mixed = {"type": "MixedLoss", "losses": [{"type": "DiceLoss"}, {"type": "CrossEntropyLoss"}], "coef": [0.5, 0.5]}
    content["loss"] = {"types": [mixed, {"type": "OhemCrossEntropyLoss", "min_kept": 10}], "coef": [1, 0.4]}
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_ignored_label_reaches_every_transform_and_loss(tmp_path):
    config = Config(str(_config(tmp_path, ignore_index=IGNORED)))
    given = {step["type"]: step for step in config.dic["train_dataset"]["transforms"]}
    for name in ("RandomRotation", "RandomPaddingCrop", "Padding"):
        assert given[name]["label_padding_value"] == IGNORED, name
    assert given["RandomPaddingCrop"]["ignore_index"] == IGNORED
    losses = config.dic["loss"]["types"]
    assert losses[1]["ignore_index"] == losses[0]["losses"][0]["ignore_index"] == IGNORED
    dataset = registry.build(config.train_dataset_cfg, "dataset", "train_dataset")
    for index in range(len(dataset)):
        assert set(np.unique(dataset[index]["label"])) <= {0, 1, 2, IGNORED}
    assert IGNORED in np.unique(dataset[0]["label"])
    train(tmp_path, [], do_eval=True, save_interval=2, use_vdl=False)


def test_padding_labels_with_what_is_no_class_is_refused(tmp_path):
    path = _config(tmp_path, ignore_index=IGNORED)
    with pytest.raises(ConfigError, match=r"train_dataset.transforms.3.label_padding_value: is 255, .* ignores 3"):
        Config(str(path), opts=["train_dataset.transforms.3.label_padding_value=255"])
    kept = Config(str(path), opts=["train_dataset.transforms.3.label_padding_value=0"])
    assert kept.dic["train_dataset"]["transforms"][3]["label_padding_value"] == 0


def test_names_and_colours_of_classes(tmp_path):
    path = _config(tmp_path)
    assert classes_of_config(Config(str(path))).names == ("class_0", "class_1", "class_2")
    (tmp_path / "data" / "classes.txt").write_text("# mine\nsand 1 2 3\nblue water,4,5,6\n\nsky\t7 8 9\n")
    config = Config(str(path))
    wanted = ("sand", "blue water", "sky")
    dataset = registry.build(config.val_dataset_cfg, "dataset", "val_dataset")
    for classes in (classes_of_config(config), classes_of(dataset), read_classes(tmp_path / "data" / "classes.txt")):
        assert classes.names == wanted and classes.colors[1] == (4, 5, 6)
    (tmp_path / "again.txt").write_text(classes_text(classes))
    assert read_classes(tmp_path / "again.txt") == classes
    # The file's names are in the resolved configuration, so that they stay when the data are elsewhere.
    assert Config(yaml.safe_load(config.dump())).dic == config.dic
    with pytest.raises(ConfigError, match="names 2 classes.*num_classes 3"):
        Config(str(path), opts=["train_dataset.class_names=[a,b]"])
    with pytest.raises(ConfigError, match="class 1 is 'b' in one and 'c' in the other"):
        Config(str(path), opts=["train_dataset.class_names=[a,b,d]", "val_dataset.class_names=[a,c,d]"])
    (tmp_path / "again.txt").write_text("a 1 2 3\nb\n")
    with pytest.raises(DataError, match="'b' has no colour"):
        read_classes(tmp_path / "again.txt")


def test_ade20k_numbering_reaches_the_quantisation(tmp_path, capsys):
    """ADE20K's files hold class + 1 and 0 for ignored; as they are, nearly every pixel counts as wrong."""
    ignored, table = label_rule({"type": "ADE20K", "dataset_root": "nowhere"}, "val_dataset")
    assert ignored == 255 and table[:3] == [255, 0, 1] and len(table) == 256
    assert label_rule({"type": "Cityscapes", "dataset_root": "nowhere"}, "val_dataset") == (255, None)
    assert label_rule({"type": "Dataset", "ignore_index": 7}, "val_dataset") == (7, None)
    folder = tmp_path / "export"
    export_model(
        ColorNet(), folder, input_shape=None, transforms=[dict(NORMALIZE)], class_info=CLASSES,
        label_rule=(ignored, table),
    )  # fmt: skip
    attention_net(folder)
    files = read_deploy_config(folder)
    assert (files.ignore_index, files.label_map) == (ignored, table)
    lines = []
    for seed in range(3):
        image, label = blocks(2, 4, 8, seed)
        cv2.imwrite(str(tmp_path / f"{seed}.png"), image)
        stored = label + 1
        stored[:2] = 0
        cv2.imwrite(str(tmp_path / f"{seed}_label.png"), stored)
        lines.append(f"{seed}.png {seed}_label.png\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    assert quantize.main(["--config", str(folder), "--image_list", str(tmp_path / "list.txt")]) == 0
    assert float(capsys.readouterr().out.split("mIoU")[1].split()[0]) == 1.0


def test_default_colours():
    assert class_info("Dataset", 2).colors[0] == (0, 0, 0) != class_info("Dataset", 3).colors[0]
