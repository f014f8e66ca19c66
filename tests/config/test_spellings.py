# SPDX-License-Identifier: Apache-2.0
"""Spellings of PaddleSeg 2.5 to develop, through `Config` and into the optimizer and the schedule that come of them."""

from paddle_dnl.config import Config
from paddle_dnl.errors import ConfigError
from paddle_dnl.optim import build_lr_scheduler, build_optimizer
from paddle_dnl.registry import OPTIMIZERS

import numpy as np
import paddle
import pytest

BASE = """
batch_size: 2
iters: 10
model: {{type: FCN, num_classes: 3, backbone: {{type: ResNet18, output_stride: 8}}}}
train_dataset: {{type: Dataset, dataset_root: data, train_path: data/a.txt, num_classes: 3, mode: train, transforms: []}}
loss: {{types: [{{type: CrossEntropyLoss}}], coef: [1]}}
optimizer: {optimizer}
{schedule}
"""
POLY = "lr_scheduler: {type: PolynomialDecay, learning_rate: 0.1}"


def _config(tmp_path, optimizer, schedule=POLY, opts=None):
    path = tmp_path / "config.yml"
    path.write_text(BASE.format(optimizer=optimizer, schedule=schedule))
    return Config(path, opts=opts)


def _built(config, model=None):
    schedule = build_lr_scheduler(config.lr_scheduler_cfg, config.iters)
    return build_optimizer(config.optimizer_cfg, model or paddle.nn.Linear(2, 2), schedule)


# What each release builds from the text: class, momentum.
@pytest.mark.parametrize("text, name, momentum", [
    ("{type: sgd, momentum: 0.8, weight_decay: 4.0e-5}", "Momentum", 0.8),  # 2.5, 2.6, 2.7
    ("{type: sgd, weight_decay: 4.0e-5}", "Momentum", 0.9),
    ("{type: adam}", "Adam", None),
    ("{type: SGD, momentum: 0.9, weight_decay: 4e-5}", "Momentum", 0.9),  # from 2.8 on
    ("{type: SGD}", "SGD", None),
    ("{type: Momentum}", "Momentum", 0.9),
    ("{type: Adam, weight_decay: 0.01}", "Adam", None),
    ("{type: AdamW, beta1: 0.9, beta2: 0.999, weight_decay: 0.01}", "AdamW", None),
    ("{type: AdamWDL, layerwise_decay: 0.65}", "AdamW", None),
    ("{type: RMSProp, momentum: 0.5}", "RMSProp", 0.5),
    ("{type: Lamb, lamb_weight_decay: 0.02}", "Lamb", None),
    ("{type: Adagrad, initial_accumulator_value: 0.1}", "Adagrad", None),
])  # fmt: skip
def test_optimizers_of_all_releases(tmp_path, text, name, momentum):
    optimizer = _built(_config(tmp_path, text))
    assert type(optimizer).__name__ == name
    assert getattr(optimizer, "_momentum", None) == momentum


def test_old_optimizer_by_override_and_written_out_again(tmp_path):
    config = _config(tmp_path, "{type: AdamW}", opts=["optimizer={type: sgd, weight_decay: 1e-4}"])
    assert config.optimizer_cfg == {"type": "Momentum", "momentum": 0.9, "weight_decay": 1e-4}
    (tmp_path / "again.yml").write_text(config.dump())
    assert Config(tmp_path / "again.yml").dic == config.dic


def _rates(config):
    schedule = build_lr_scheduler(config.lr_scheduler_cfg, config.iters)
    rates = []
    for _ in range(6):
        rates.append(schedule.get_lr())
        schedule.step()
    return rates


def test_schedules_of_files_up_to_2_7(tmp_path):
    wanted = [0.1 * (1 - i / 10) ** 0.9 for i in range(6)]
    np.testing.assert_allclose(_rates(_config(tmp_path, "{type: sgd}")), wanted)
    old = "learning_rate: {value: 0.1, decay: {type: poly, power: 0.5, end_lr: 0.02, decay_steps: 5}}"
    poly = [(0.1 - 0.02) * (1 - min(i, 5) / 5) ** 0.5 + 0.02 for i in range(6)]
    np.testing.assert_allclose(_rates(_config(tmp_path, "{type: sgd}", old)), poly)
    np.testing.assert_allclose(_rates(_config(tmp_path, "{type: sgd}", "learning_rate: {value: 0.1}")), wanted)
    old = "learning_rate: {value: [0.1, 0.01], decay: {type: piecewise, boundaries: [3]}}"
    np.testing.assert_allclose(_rates(_config(tmp_path, "{type: adam}", old)), [0.1] * 3 + [0.01] * 3)
    old = "learning_rate: {value: 0.1, decay: {type: stepdecay, step_size: 2, gamma: 0.5}}"
    np.testing.assert_allclose(_rates(_config(tmp_path, "{type: sgd}", old)), [0.1, 0.1, 0.05, 0.05, 0.025, 0.025])
    np.testing.assert_allclose(_rates(_config(tmp_path, "{type: sgd}", "learning_rate: 0.01")), [0.01] * 6)


def test_schedule_from_2_8_on_has_paddles_defaults(tmp_path):
    wanted = [(0.1 - 1e-4) * (1 - i / 10) + 1e-4 for i in range(6)]
    np.testing.assert_allclose(_rates(_config(tmp_path, "{type: SGD}")), wanted)


def test_learning_rate_beside_a_schedule_is_ignored_with_one_line(tmp_path, capfd):
    config = _config(tmp_path, "{type: SGD}", f"{POLY}\nlearning_rate: {{value: 0.5}}")
    out, err = capfd.readouterr()
    assert (out + err).count("learning_rate: ignored beside lr_scheduler") == 1
    assert config.lr_scheduler_cfg["learning_rate"] == 0.1 and "learning_rate" not in config.dic


def test_rate_of_the_backbone_in_2_7(tmp_path):
    class Net(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = paddle.nn.Linear(2, 2), paddle.nn.Linear(2, 2)

    model = Net()
    _built(_config(tmp_path, "{type: sgd, backbone_lr_mult: 0.1}"), model)
    rates = {name: p.optimize_attr["learning_rate"] for name, p in model.named_parameters()}
    assert rates == {"backbone.weight": 0.1, "backbone.bias": 0.1, "head.weight": 1.0, "head.bias": 1.0}


@pytest.mark.parametrize("text, message", [
    ("{type: sdg}", "optimizer.type: there is no optimizer named 'sdg'"),
    ("{type: LBFGS}", "no optimizer named 'LBFGS'"),
    ("{type: sgd, momentum: 2}", "optimizer.momentum: must be a number from 0 to 1"),
    ("{type: adam, beta3: 0.9}", "optimizer.beta3: unknown key. Did you mean 'beta"),
    ("{type: Lamb, weight_decay: 0.1}", "optimizer.weight_decay: unknown key. Did you mean 'lamb_weight_decay'"),
    ("{type: RMSProp, rho: fast}", "optimizer.rho: must be a number"),
    ("{type: AdamWDL, layerwise_decay: 1.5}", "optimizer.layerwise_decay: must be above 0"),
    ("{type: SGD, custom_cfg: [{name: a, lr_mul: 2}]}", "optimizer.custom_cfg.0.lr_mul: unknown key"),
    ("{type: SGD, grad_clip_cfg: {name: Clip}}", "optimizer.grad_clip_cfg.name: must be one of"),
    ("{type: AdamWDL_CAE, n_layers: 3}", "optimizer.n_layers: unknown key"),
])  # fmt: skip
def test_refused_before_anything_is_built(tmp_path, text, message):
    with pytest.raises(ConfigError, match="config.yml.*") as raised:
        _config(tmp_path, text)
    assert message in str(raised.value)


def test_optimizers_of_a_user(tmp_path):
    class Slow(paddle.optimizer.SGD):
        """A subclass of Paddle's class."""

    class AsInPaddleSeg:
        """PaddleSeg's protocol."""

        def __init__(self, weight_decay=None, rho=0.5):
            self.rho = rho

        def __call__(self, model, lr):
            optimizer = paddle.optimizer.SGD(lr, parameters=model.parameters())
            optimizer.rho = self.rho
            return optimizer

    try:
        OPTIMIZERS.add_component(Slow)
        OPTIMIZERS.add_component(AsInPaddleSeg)
        assert isinstance(_built(_config(tmp_path, "{type: Slow, weight_decay: 0.1}")), Slow)
        assert _built(_config(tmp_path, "{type: AsInPaddleSeg, rho: 2}")).rho == 2
    finally:
        del OPTIMIZERS.components_dict["Slow"], OPTIMIZERS.components_dict["AsInPaddleSeg"]
