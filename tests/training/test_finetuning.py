# SPDX-License-Identifier: Apache-2.0
"""Freezing, class weights, another number of classes, and the search for a learning rate."""

import csv

import paddle_dnl  # noqa: F401
from paddle_dnl.cli import train as train_program
from paddle_dnl.config import Config
from paddle_dnl.errors import ConfigError, UsageError
from paddle_dnl.training.options import TrainOptions
from paddle_dnl.training.rate_sweep import smoothed, suggest
from paddle_dnl.training.trainer import Trainer
from paddle_dnl.weights.loading import NAME_TABLE, read_params

import cv2
import numpy as np
import paddle
import pytest
import tiny_training

SMALL_DNL = "model={type: DNLNet, dialect: mmseg, num_classes: 3, backbone: {type: ResNet18, output_stride: 16, in_channels: 3}}"
SMALL_DGMN2 = (
    "model={type: SemanticFPN, num_classes: 3, backbone: {type: DGMN2_Tiny, output: neck, drop_path_rate: 0.3}}"
)


def _trained(folder, opts, **options):
    """Arrays before and after four steps, with an evaluation after two, which puts the model into training mode again."""
    config = Config(str(tiny_training.write_config(folder)), opts=[*opts, "iters=4"])
    settings = {"save_dir": str(folder / "run"), "do_eval": True, "save_interval": 2, "seed": 1, **options}
    trainer = Trainer(config, TrainOptions(**settings))
    before = {key: value.numpy().copy() for key, value in trainer.model.state_dict().items()}
    trainer.run()
    return before, {key: value.numpy() for key, value in trainer.model.state_dict().items()}, trainer


@pytest.mark.parametrize(
    "freeze, frozen",
    [
        ("backbone", ("backbone.",)),
        ("{stages: 2}", ("backbone.conv1_", "backbone.bb_0_", "backbone.bb_1_")),
        ("[backbone.conv1_1, head.conv0]", ("backbone.conv1_1.", "head.conv0.")),
    ],
)
def test_frozen_layers_keep_weights_and_statistics(tmp_path, freeze, frozen):
    before, after, _ = _trained(tmp_path, [SMALL_DNL, f"freeze={freeze}"])
    for key, value in before.items():
        if key.startswith(frozen):
            np.testing.assert_array_equal(value, after[key], err_msg=key)
    changed = {key for key, value in before.items() if not np.array_equal(value, after[key])}
    moving = {key for key in before if key.endswith(("_mean", "_variance", ".weight")) and not key.startswith(frozen)}
    assert len(moving - changed) <= 2, sorted(moving - changed)[:5]


def test_frozen_layers_of_a_static_graph(tmp_path):
    before, after, _ = _trained(tmp_path, [SMALL_DNL, "freeze=backbone"], to_static_training=True)
    changed = {key for key, value in before.items() if not np.array_equal(value, after[key])}
    assert changed and not any(key.startswith("backbone.") for key in changed), sorted(changed)


def test_stages_of_dgmn2_and_no_dropped_paths(tmp_path):
    steps = "[{type: Resize, target_size: [72, 72]}, {type: Normalize}]"
    sizes = [f"train_dataset.transforms={steps}", f"val_dataset.transforms={steps}"]
    before, after, trainer = _trained(tmp_path, [SMALL_DGMN2, "freeze={stages: 1}", "loss.coef=[1]", *sizes])
    same = {key for key, value in before.items() if np.array_equal(value, after[key])}
    assert all(key in same for key in before if key.startswith(("backbone.patch_embed1.", "backbone.block1.")))
    assert not all(key in same for key in before if key.startswith("backbone.patch_embed2."))
    trainer.model.train()
    image = trainer.train_dataset[0]["img"][None]
    trainer.model(paddle.to_tensor(image))
    training = {name: layer.training for name, layer in trainer.model.named_sublayers()}
    assert not training["backbone.block1"] and training["backbone.block2"]


@pytest.mark.parametrize(
    "opts, message",
    [
        (["freeze=backbone"], "freeze: TinyNet has no backbone"),
        (["freeze=[cnv]"], "freeze: the model has no layer 'cnv'. Did you mean 'conv'"),
        (["freeze=head"], "freeze: must be `backbone`"),
        (["freeze=[conv, cls, aux, dropout]"], "leaves nothing to train"),
        (["class_weights=[1, 2]"], "class_weights: must be `auto` or 3 numbers"),
        (["class_weights=even"], "class_weights: must be `auto`"),
        (["class_weights=auto", "loss.types=[{type: CrossEntropyLoss, weight: [1, 1, 1]}]"], "has its own `weight`"),
    ],
)
def test_refused(tmp_path, opts, message):
    tiny_training.write_config(tmp_path)
    with pytest.raises(ConfigError, match=message):
        tiny_training.train(tmp_path, opts)


def test_class_weights_from_the_labels(tmp_path):
    before, after, trainer = _trained(tmp_path, ["class_weights=auto"])
    labels = [cv2.imread(str(tmp_path / "data" / f"label_{i}.png"), 0) for i in range(8)]
    pixels = np.array([sum((label == k).sum() for label in labels) for k in range(3)], float)
    images = np.array([sum((label == k).any() for label in labels) for k in range(3)])
    frequency = pixels / (images * pixels.sum() / 8)
    wanted = np.clip(np.median(frequency) / frequency, 0.1, 10)
    for loss in trainer.losses.losses:
        np.testing.assert_allclose(loss.weight.numpy(), wanted, atol=6e-4)
    _, given, trainer = _trained(tmp_path / "b", ["class_weights=[1, 2, 3]"])
    assert trainer.losses.losses[0].weight.numpy().tolist() == [1, 2, 3]
    _, plain, _ = _trained(tmp_path / "c", [])
    assert not np.array_equal(given["cls.weight"], plain["cls.weight"])


def test_another_number_of_classes_with_one_flag(tmp_path, said):
    config = tiny_training.write_config(tmp_path)
    arguments = ["--config", str(config), "--iters", "2", "--seed", "0", "--opts", SMALL_DNL]
    train_program.main([*arguments, "--save_dir", str(tmp_path / "a")])
    trained = tmp_path / "a" / "iter_2" / "model.pdparams"
    more = ["--finetune", str(trained), "--num_classes", "5", "--learning_rate", "0"]
    train_program.main([*arguments, *more, "--save_dir", str(tmp_path / "b")])
    old, new = read_params(trained), read_params(tmp_path / "b" / "iter_2" / "model.pdparams")
    fresh = {key for key in old if np.shape(old[key]) != np.shape(new[key])}
    assert {np.shape(new[key])[0] for key in fresh} == {5} and 2 <= len(fresh) <= 4
    for key in old.keys() - fresh - {NAME_TABLE}:
        if not key.endswith(("_mean", "_variance")):
            np.testing.assert_array_equal(old[key], new[key])
    (line,) = [text for text in said().splitlines() if "initialised anew" in text]
    assert line.endswith(f"for 5 classes in place of 3 these are initialised anew: {', '.join(sorted(fresh))}")
    assert f"{len(old) - len(fresh) - 1} tensors taken" in line
    for flags, message in (
        (["--finetune", "a", "--pretrained", "b"], "--pretrained and --finetune contradict"),
        (["--num_classes", "1"], "--num_classes must be at least 2"),
    ):
        with pytest.raises(UsageError, match=message):
            train_program.main([*arguments, *flags])


def test_the_suggested_rate_is_where_the_loss_falls_most():
    rates = np.logspace(-6, 0, 100).tolist()
    falls = [2.0 - 1.5 / (1 + np.exp(-3 * (np.log(rate) - np.log(1e-3)))) + (20 * rate) ** 2 for rate in rates]
    assert 5e-4 < suggest(rates, falls) < 4e-3  # the mean lags behind the middle of the fall at 1e-3
    with pytest.raises(UsageError, match="never fell"):
        suggest(rates, [1 + rate for rate in rates])
    np.testing.assert_allclose(smoothed([3.0, 3.0, 3.0]), 3.0)
    assert smoothed([1.0, 2.0])[1] == pytest.approx((0.9 * 0.1 * 1 + 0.1 * 2) / (1 - 0.81))


def test_find_lr(tmp_path, said):
    config = tiny_training.write_config(tmp_path)
    arguments = ["--config", str(config), "--save_dir", str(tmp_path / "run"), "--seed", "0"]
    assert train_program.main([*arguments, "--find_lr", "60", "--opts", "model.dropout=0"]) == 0
    with open(tmp_path / "run" / "find_lr" / "find_lr.csv", newline="") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert rows[0]["learning_rate"] == 1e-6 and 20 < len(rows) <= 60
    factors = [b["learning_rate"] / a["learning_rate"] for a, b in zip(rows, rows[1:], strict=False)]
    np.testing.assert_allclose(factors, 1e6 ** (1 / 59))
    np.testing.assert_allclose([row["smoothed"] for row in rows], smoothed([row["loss"] for row in rows]))
    assert min(row["smoothed"] for row in rows) < rows[0]["loss"]
    assert (tmp_path / "run" / "find_lr" / "find_lr.png").stat().st_size > 5000
    assert not list((tmp_path / "run").glob("**/*.pdparams"))
    assert any("try --learning_rate" in text for text in said().splitlines())
    with pytest.raises(UsageError, match="cannot be combined with --resume_model"):
        train_program.main([*arguments, "--find_lr", "--resume_model", "auto"])
