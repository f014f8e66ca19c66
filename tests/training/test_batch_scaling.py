# SPDX-License-Identifier: Apache-2.0
"""--scale_lr: rates in proportion to the batch of all processes; another batch or schedule when a run is resumed."""

import re

from paddle_dnl.config import Config
from paddle_dnl.distributed import collectives
from paddle_dnl.errors import UsageError
from paddle_dnl.training import api, batch_scaling

import paddle
import pytest
import tiny_training

RECIPE = "dnlnet_resnet50_os8_cityscapes_1024x512_80k"  # 4 GPUs x 2, rate 0.01


def _rates(text):
    return [float(rate) for rate in re.findall(r"iter: \d+/\d+,.* lr: ([\d.]+)", text)]


@pytest.mark.parametrize(
    "processes, opts, base, factor",
    [
        (4, [], 0, 1.0),  # as published
        (16, [], 0, 4.0),
        (1, ["grad_accum_iters=2"], 0, 0.5),
        (2, ["batch_size=8"], 16, 1.0),
        (2, ["batch_size=8"], 0, 2.0),
        (16, [], None, 1.0),
    ],
)
def test_rates_of_a_published_recipe(monkeypatch, processes, opts, base, factor):
    monkeypatch.setattr(collectives, "world_size", lambda: processes)
    config = Config(RECIPE, opts=[*opts, "lr_scheduler.end_lr=1e-3"])
    batch_scaling.scale_rates(config, base)
    schedule = config.dic["lr_scheduler"]
    assert (schedule["learning_rate"], schedule["end_lr"]) == pytest.approx((0.01 * factor, 1e-3 * factor))
    assert schedule["power"] == 0.9


@pytest.mark.parametrize(
    "schedule, expected",
    [
        ("{type: PiecewiseDecay, boundaries: [5], values: [0.1, 0.01]}", {"boundaries": [5], "values": [0.3, 0.03]}),
        ("{type: PolynomialDecay, learning_rate: 0.1}", {"learning_rate": 0.3, "end_lr": 3e-4}),  # Paddle's default end
        ("{type: CosineAnnealingDecay, learning_rate: 0.1, T_max: 9, eta_min: 0.01}", {"eta_min": 0.03, "T_max": 9}),
    ],
)
def test_what_is_a_rate(tmp_path, monkeypatch, schedule, expected):
    """Without a recipe the base is the file's batch in one process: 2 here, whatever the command line has."""
    path = tiny_training.write_config(tmp_path)
    path.write_text(re.sub(r"lr_scheduler: .*", f"lr_scheduler: {schedule}", path.read_text()))
    monkeypatch.setattr(collectives, "world_size", lambda: 2)
    config = Config(str(path), batch_size=3)
    batch_scaling.scale_rates(config, 0)
    found = config.dic["lr_scheduler"]
    for key, value in expected.items():
        assert found[key] == pytest.approx(value), key


def test_a_run_uses_and_stores_the_scaled_rate(tmp_path, said):
    """0.05 for a batch of 2; 4 images here. The stored configuration has the rate that was used."""
    tiny_training.train(tmp_path, ["batch_size=4", "iters=2"], scale_lr=0)
    assert _rates(said())[0] == pytest.approx(0.1)
    assert "4 images per update for 2" in said()
    assert Config(str(tmp_path / "output" / "config.yml")).dic["lr_scheduler"]["learning_rate"] == pytest.approx(0.1)


def test_objects_have_their_rate(tmp_path):
    net = tiny_training.TinyNet(3)
    optimizer = paddle.optimizer.SGD(0.1, parameters=net.parameters())
    config = Config(str(tiny_training.write_config(tmp_path)))
    with pytest.raises(UsageError, match="scale_lr: only with a configuration"):
        losses = {"types": [paddle.nn.CrossEntropyLoss()], "coef": [1]}
        api.train(net, _dataset(config), None, optimizer, tmp_path / "o", 2, 2, losses=losses, scale_lr=0)


def _dataset(config):
    from paddle_dnl import registry

    return registry.build(config.train_dataset_cfg, "dataset", "train_dataset")


def test_a_resumed_run_with_another_batch_is_told_what_stays(tmp_path, said):
    tiny_training.train(tmp_path, ["iters=4"], save_interval=2)
    tiny_training.train(tmp_path, ["iters=4", "batch_size=8"], resume_model=str(tmp_path / "output" / "iter_2"))
    assert "4 iterations stay, each with 8 images in place of 2" in said()
    assert "the learning rate of 0.05 stays, in proportion it would be 0.2 (--scale_lr 2)" in said()


@pytest.mark.parametrize(
    "now, expected",
    [
        ((4, 1, 1), "the batch of all processes (4 images per update) stay"),
        ((2, 2, 1), None),
        ((2, 3, 1), "in proportion it would be 0.15 (--scale_lr 4)"),
    ],
)
def test_another_number_of_processes(tmp_path, now, expected):
    config = Config(str(tiny_training.write_config(tmp_path)), opts=["lr_scheduler.learning_rate=0.1"])
    keys = ("batch_size", "world_size", "grad_accum_iters")
    before = dict(zip(keys, (2, 2, 1), strict=True))
    found = batch_scaling.explain_change(before, dict(zip(keys, now, strict=True)), config, is_scaled=False)
    assert found is None if expected is None else expected in found


@pytest.mark.parametrize(
    "schedule",
    [
        "{type: PolynomialDecay, learning_rate: 0.05, end_lr: 0, power: 0.9}",
        "{type: CosineAnnealingDecay, learning_rate: 0.05, T_max: 12}",  # a recursion, which kept the old rate for good
    ],
)
def test_another_rate_holds_from_the_first_step_of_a_resumed_run(tmp_path, said, schedule):
    path = tiny_training.write_config(tmp_path)
    path.write_text(re.sub(r"lr_scheduler: .*", f"lr_scheduler: {schedule}", path.read_text()))
    opts = ["iters=6", "lr_scheduler.learning_rate=0.2"]
    tiny_training.train(tmp_path, opts, save_dir=str(tmp_path / "whole"))
    whole = _rates(said())
    tiny_training.train(tmp_path, ["iters=3"], save_interval=3)
    tiny_training.train(tmp_path, opts, resume_model="auto")
    assert _rates(said())[-3:] == whole[3:]
