# SPDX-License-Identifier: Apache-2.0
"""A run that resumes with another configuration says so, keeps the old one, and refuses another function."""

import shutil

from paddle_dnl.cli import export, predict, train, val
from paddle_dnl.config import Config
from paddle_dnl.errors import CheckpointError, PaddleDnlError
from paddle_dnl.models.build import build_model

import pytest
import tiny_training
import yaml


def test_a_changed_recipe_is_said_and_the_old_one_kept(tmp_path, said):
    tiny_training.write_config(tmp_path)
    tiny_training.train(tmp_path, ["iters=5"])
    before = (tmp_path / "output" / "config.yml").read_text()
    changes = ["iters=8", "loss.coef=[1,0.8]", "optimizer.weight_decay=0.001", "lr_scheduler.learning_rate=0.01"]
    tiny_training.train(tmp_path, changes, resume_model="auto")
    for line in (
        "loss.coef: [1, 0.4] -> [1, 0.8]",
        "optimizer.weight_decay: 0.0001 -> 0.001",
        "iters: 5 -> 8",
        "from this iteration on the learning rate follows the new schedule",
    ):
        assert line in said(), line
    assert (tmp_path / "output" / "config.1.yml").read_text() == before
    assert yaml.safe_load((tmp_path / "output" / "config.yml").read_text())["iters"] == 8


@pytest.mark.parametrize("change", ["model.dropout=0.1", "val_dataset.transforms.0.mean=[0.1,0.2,0.3]"])
def test_another_function_is_refused_unless_told(tmp_path, change):
    tiny_training.write_config(tmp_path)
    tiny_training.train(tmp_path, ["iters=5"])
    before = (tmp_path / "output" / "config.yml").read_text()
    with pytest.raises(CheckpointError, match=r"(model.dropout|normalisation).*--allow_recipe_changes"):
        tiny_training.train(tmp_path, ["iters=6", change], resume_model="auto")
    assert (tmp_path / "output" / "config.yml").read_text() == before
    tiny_training.train(tmp_path, ["iters=6", change], resume_model="auto", allow_recipe_changes=True)


REFUSED = {
    "fewer iterations": (["--iters", "2"], "has done 8 iterations, more than the 2"),
    "another function": (["--iters", "9", "--opts", "model.dropout=0.1"], "model.dropout .*--allow_recipe_changes"),
    "another optimizer": (["--iters", "9", "--opts", "optimizer={type: AdamW}"], "AdamW"),
    "a damaged checkpoint": (["--iters", "9", "--use_ema"], "model.pdopt"),
}


@pytest.mark.parametrize("flags, message", REFUSED.values(), ids=REFUSED)
def test_a_refused_resume_changes_no_file_of_the_run(tmp_path, flags, message):
    config, output = tiny_training.write_config(tmp_path), tmp_path / "output"
    run = ["--config", str(config), "--save_dir", str(output), "--device", "cpu", "--seed", "7", "--save_interval", "4"]
    assert train.main([*run, "--iters", "8"]) == 0

    def files():
        return {p: p.read_bytes() for p in sorted(output.rglob("*")) if p.is_file() and not p.name.startswith(".")}

    resumed = "auto"
    if message == "model.pdopt":
        resumed = str(output / "iter_8")
        (output / "iter_8" / message).write_bytes(b"half of it")
    before = files()
    with pytest.raises(PaddleDnlError, match=message):
        train.main([*run, *flags, "--resume_model", resumed])
    assert files() == before


def _weights(tmp_path) -> str:
    tiny_training.write_config(tmp_path)
    names = [f"{section}.class_names=[road,car,sky]" for section in ("train_dataset", "val_dataset")]
    tiny_training.train(tmp_path, ["iters=2", *names])
    (found,) = (tmp_path / "output").glob("iter_2/model.pdparams")
    return str(found)


def test_other_values_than_those_of_the_training_are_warned_of(tmp_path, said):
    """By val.py, predict.py and export.py, which all build their model in one function."""
    weights, config = _weights(tmp_path), str(tmp_path / "config.yml")
    given = ["--config", config, "--model_path", weights]
    same = ["train_dataset.class_names=[road,car,sky]", "val_dataset.class_names=[road,car,sky]"]
    same += ["model.in_channels=3", "val_dataset.transforms.0.mean=[0.5,0.5,0.5]"]  # the defaults
    assert val.main([*given, "--device", "cpu", "--opts", *same, "model.dropout=0.1", "iters=7"]) == 0
    assert "trained with other values" not in said()
    changes = ["val_dataset.transforms.0.mean=[0.1,0.2,0.3]", "val_dataset.class_names=[car,road,sky]"]
    changes += ["train_dataset.class_names=[car,road,sky]", "model.poison=99"]
    image = str(tmp_path / "data" / "image_0.png")
    programs = {
        val: ["--device", "cpu"],
        predict: ["--device", "cpu", "--image_path", image, "--save_dir", str(tmp_path / "predicted")],
        export: ["--save_dir", str(tmp_path / "exported"), "--input_shape", "1", "3", "24", "24"],
    }
    for i, (program, flags) in enumerate(programs.items()):
        assert program.main([*given, *flags, "--opts", *changes]) == 0
        (line, *others) = [line for line in said().splitlines() if "trained with other values" in line][i:]
        assert not others and line.startswith(weights) and config in line
        assert "model.poison None -> 99" in line
        assert "val_dataset.transforms.Normalize.mean [0.5, 0.5, 0.5] -> [0.1, 0.2, 0.3]" in line
        assert "val_dataset.class_names ['road', 'car', 'sky'] -> ['car', 'road', 'sky']" in line


def test_weights_without_a_configuration_are_not_compared(tmp_path, said):
    weights, config = _weights(tmp_path), Config(tiny_training.write_config(tmp_path), opts=["model.poison=99"])
    (tmp_path / "alone").mkdir()
    for content in (None, "_base_: other.yml", "a: b", "model: x"):
        alone = shutil.copy(weights, tmp_path / "alone" / "model.pdparams")
        if content:
            (tmp_path / "alone" / "config.yml").write_text(content)
        build_model(config, pretrained=alone)
    assert "trained with" not in said()
    (tmp_path / "alone" / "config.yml").write_text("a: [")
    build_model(config, pretrained=alone)
    assert "the configuration of the weights is not known" in said()
