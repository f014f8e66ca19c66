# SPDX-License-Identifier: Apache-2.0
"""Schedules and optimizers: the update itself against NumPy, parameter groups, refusals."""

import re
from pathlib import Path
from types import SimpleNamespace

from paddle_dnl import build_model
from paddle_dnl.config import Config
from paddle_dnl.errors import ConfigError
from paddle_dnl.optim import build_lr_scheduler, build_optimizer, parameter_groups

import numpy as np
import paddle
import pytest


class Net(paddle.nn.Layer):
    def __init__(self):
        super().__init__()
        self.theta = paddle.nn.Linear(2, 2)
        self.head = paddle.nn.Linear(2, 2)
        self.frozen = paddle.nn.Linear(2, 2)
        for parameter in self.frozen.parameters():
            parameter.stop_gradient = True


def _two_steps(cfg, lr=0.1):
    """Weights before and after two steps with gradients 1 and 2, by parameter name."""
    model = Net()
    optimizer = build_optimizer(cfg, model, lr)
    named = {name: p for name, p in model.named_parameters() if not p.stop_gradient}
    before = {name: p.numpy().astype(np.float64) for name, p in named.items()}
    for gradient in (1.0, 2.0):
        sum((p * gradient).sum() for p in named.values()).backward()
        optimizer.step()
        optimizer.clear_grad()
    return before, {name: p.numpy() for name, p in named.items()}


def _momentum(w, lr, decay, momentum=0.9):
    velocity = 0
    for gradient in (1.0, 2.0):
        velocity = momentum * velocity + gradient + decay * w
        w = w - lr * velocity
    return w


def _adamw(w, lr, decay):
    m = v = 0.0
    for t, g in enumerate((1.0, 2.0), 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w * (1 - lr * decay) - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


def test_plain_sgd_decays_by_group():
    cfg = {"type": "SGD", "weight_decay": 0.05, "custom_cfg": [{"name": "theta", "weight_decay_mult": 2}]}
    before, after = _two_steps(cfg)
    for name, value in after.items():
        wanted = _momentum(before[name], 0.1, 0.1 if "theta" in name else 0.05, momentum=0.0)
        np.testing.assert_allclose(value, wanted, rtol=1e-5, err_msg=name)


def test_adam_adds_decay_to_the_gradient():
    cfg = {"type": "Adam", "weight_decay": 0.1, "custom_cfg": [{"name": "theta", "weight_decay_mult": 0.0}]}
    before, after = _two_steps(cfg, lr=0.01)
    for name, value in after.items():
        w, m, v, decay = before[name], 0.0, 0.0, 0.0 if "theta" in name else 0.1
        for t, g in enumerate((1.0, 2.0), 1):
            g = g + decay * w
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            w = w - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(value, w, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("cfg, decay", [({}, 0.01), ({"weight_decay": None}, 0.0), ({"weight_decay": "2e-1"}, 0.2)])
def test_decay_of_adamw(cfg, decay):
    """0.01 by default; none if that is asked for; a number that YAML takes for text."""
    before, after = _two_steps({"type": "AdamW", **cfg}, lr=0.1)
    for name, value in after.items():
        np.testing.assert_allclose(value, _adamw(before[name], 0.1, decay), rtol=1e-5, atol=1e-7, err_msg=name)


def test_frozen_parameters_stay_out():
    model = Net()
    optimizer = build_optimizer({"type": "SGD", "custom_cfg": [{"name": "theta", "lr_mult": 2}]}, model, 0.1)
    held = {id(p) for group in optimizer._param_groups for p in group["params"]}
    assert held == {id(p) for name, p in model.named_parameters() if not name.startswith("frozen")}
    with pytest.raises(ConfigError, match="fits 'frozen'"):
        build_optimizer({"type": "SGD", "custom_cfg": [{"name": "frozen"}]}, model, 0.1)


@pytest.mark.parametrize("cfg", [
    {"type": "SGD", "momentum": 0.9, "weight_decay": 0.05},
    {"type": "Momentum", "use_nesterov": True, "weight_decay": 0.05,
     "custom_cfg": [{"name": "theta", "weight_decay_mult": 0.0}, {"name": "head", "lr_mult": 10.0}]},
    {"type": "AdamW", "beta1": 0.8, "custom_cfg": [{"name": "head", "lr_mult": 0.1, "weight_decay_mult": 3.0}],
     "grad_clip_cfg": {"name": "ClipGradByValue", "max": 0.5}},
])  # fmt: skip
@pytest.mark.paddleseg
def test_same_steps_as_live_paddleseg(cfg):
    from paddleseg.cvlibs.builder import SegBuilder

    ours, theirs = Net(), Net()
    theirs.set_state_dict(ours.state_dict())

    class Builder(SegBuilder):
        model, lr_scheduler = theirs, 0.1

    pairs = [(ours, build_optimizer(cfg, ours, 0.1))]
    pairs.append((theirs, Builder(SimpleNamespace(optimizer_cfg=dict(cfg))).optimizer))
    for model, optimizer in pairs:
        for gradient in (1.0, -2.0, 0.3):
            sum((p * gradient).sum() for p in model.parameters() if not p.stop_gradient).backward()
            optimizer.step()
            optimizer.clear_grad()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)


@pytest.mark.parametrize("kind", ["SGD", "Momentum"])
def test_momentum_sgd_with_groups(kind):
    """No decay on theta, ten times the rate on the head, as the recipes with groups ask."""
    cfg = {
        "type": kind, "momentum": 0.9, "weight_decay": 0.05,
        "custom_cfg": [{"name": "theta", "weight_decay_mult": 0.0}, {"pattern": r"^head\.", "lr_mult": 10.0}],
    }  # fmt: skip
    before, after = _two_steps(cfg)
    for name, value in after.items():
        wanted = _momentum(before[name], 0.1 * (10 if "head" in name else 1), 0.0 if "theta" in name else 0.05)
        np.testing.assert_allclose(value, wanted, rtol=1e-5, err_msg=name)


def test_adamw_decays_apart_from_the_gradient():
    cfg = {"type": "AdamW", "weight_decay": 0.1, "custom_cfg": [{"name": "theta", "weight_decay_mult": 0.0}]}
    before, after = _two_steps(cfg, lr=0.01)
    for name, value in after.items():
        wanted = _adamw(before[name], 0.01, 0.0 if "theta" in name else 0.1)
        np.testing.assert_allclose(value, wanted, rtol=1e-5, err_msg=name)


def test_clip_by_global_norm():
    cfg = {"type": "SGD", "grad_clip_cfg": {"name": "ClipGradByGlobalNorm", "clip_norm": 1.0}}
    before, after = _two_steps(cfg)
    moved = np.concatenate([(before[n] - after[n]).ravel() for n in before])
    # Two steps of length lr * clip_norm in the same direction.
    np.testing.assert_allclose(np.linalg.norm(moved), 0.2, rtol=1e-4)


def test_clip_of_each_tensor_by_norm_and_by_value():
    before, after = _two_steps({"type": "SGD", "grad_clip_cfg": {"name": "ClipGradByNorm", "clip_norm": 1.0}})
    for name in before:
        np.testing.assert_allclose(np.linalg.norm(before[name] - after[name]), 0.2, rtol=1e-4)
    before, after = _two_steps({"type": "SGD", "grad_clip_cfg": {"name": "ClipGradByValue", "max": 1.5}})
    for name in before:
        np.testing.assert_allclose(before[name] - after[name], 0.1 * (1 + 1.5), rtol=1e-4)


def test_poly_to_the_end_of_training():
    schedule = build_lr_scheduler({"type": "PolynomialDecay", "learning_rate": 0.1, "end_lr": 0.01, "power": 0.9}, 8)
    found = []
    for _ in range(9):
        found.append(schedule.get_lr())
        schedule.step()
    wanted = [(0.1 - 0.01) * (1 - min(i, 8) / 8) ** 0.9 + 0.01 for i in range(9)]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_warm_up_then_poly_over_the_rest():
    cfg = {"type": "PolynomialDecay", "learning_rate": 0.1, "power": 1.0, "end_lr": 0, "warmup_iters": 4,
           "warmup_start_lr": 0.02}  # fmt: skip
    schedule = build_lr_scheduler(cfg, 14)
    found = []
    for _ in range(14):
        found.append(schedule.get_lr())
        schedule.step()
    np.testing.assert_allclose(found[:4], [0.02, 0.04, 0.06, 0.08], rtol=1e-9)
    np.testing.assert_allclose(found[4:], [0.1 * (1 - i / 10) for i in range(10)], rtol=1e-9)
    assert cfg["warmup_iters"] == 4  # not consumed


@pytest.mark.parametrize("cfg", [
    {"type": "PolynomialDecay", "learning_rate": 0.1, "power": 0.9, "end_lr": 1e-4},
    {"type": "PolynomialDecay", "learning_rate": 0.1, "power": 0.9, "decay_steps": 5, "end_lr": 0.01},
    {"type": "PolynomialDecay", "learning_rate": 0.1, "power": 0.9, "warmup_iters": 4, "warmup_start_lr": 0.01},
    {"type": "PiecewiseDecay", "boundaries": [3, 6], "values": [0.1, 0.05, 0.01]},
    {"type": "StepDecay", "learning_rate": 0.1, "step_size": 3, "gamma": 0.5},
    {"type": "StepDecay", "learning_rate": 0.1, "step_size": 3, "warmup_iters": 2, "warmup_start_lr": 0.0},
    {"type": "MultiStepDecay", "learning_rate": 0.1, "milestones": [3, 6]},
    {"type": "CosineAnnealingDecay", "learning_rate": 0.1, "T_max": 8, "eta_min": 0.001},
    {"type": "ExponentialDecay", "learning_rate": 0.1, "gamma": 0.9},
], ids=lambda cfg: cfg["type"])  # fmt: skip
@pytest.mark.paddleseg
def test_same_schedule_as_live_paddleseg(cfg):
    from paddleseg.cvlibs.builder import SegBuilder

    iters = 10
    theirs = SegBuilder(SimpleNamespace(lr_scheduler_cfg=dict(cfg), iters=iters)).lr_scheduler
    ours = build_lr_scheduler(cfg, iters)
    for _ in range(iters + 2):
        assert ours.get_lr() == theirs.get_lr()
        ours.step()
        theirs.step()


ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("depth", [50, 101])
def test_769_80k_decays_all_or_as_openmmlabs_file_intends(depth):
    """OpenMMLab's `wd_mult` on theta and phi is not read there, so the published run decays all; the option is in the head."""
    path = ROOT / f"configs/dnlnet/mmseg/dnl_r{depth}-d8_769x769_80k_cityscapes.yml"
    assert "custom_cfg" not in Config(path).optimizer_cfg
    option = re.search(r'--opts "(optimizer.custom_cfg=.*)"', path.read_text())[1]
    config = Config(path, opts=[option, "model.backbone.type=ResNet18"])
    model = build_model(config)
    groups = parameter_groups(model, config.optimizer_cfg["custom_cfg"], 5e-4)
    free = {id(p) for group in groups if group.get("weight_decay") == 0 for p in group["params"]}
    block = dict(model.head.dnl_block.named_parameters())
    assert free == {id(block[f"{name}.{part}"]) for name in ("theta", "phi") for part in ("weight", "bias")}


def test_warm_up_of_a_schedule_without_a_learning_rate():
    cfg = {"type": "PiecewiseDecay", "boundaries": [2], "values": [0.1, 0.05], "warmup_iters": 2, "warmup_start_lr": 0}
    schedule = build_lr_scheduler(cfg, 10)
    found = []
    for _ in range(6):
        found.append(schedule.get_lr())
        schedule.step()
    np.testing.assert_allclose(found, [0, 0.05, 0.1, 0.1, 0.05, 0.05], rtol=1e-9)


@pytest.mark.parametrize("cfg, message", [
    ({"type": "SGD", "custom_cfg": [{"name": "theta"}, {"name": "theta.w"}]}, "earlier entries take every"),
    ({"type": "SGD", "custom_cfg": [{"name": "theta", "lr_mult": "ten"}]}, r"custom_cfg\.0\.lr_mult: must be a number"),
    ({"type": "SGD", "custom_cfg": {"name": "theta"}}, "expected a list"),
    ({"type": "SGD", "custom_cfg": [{"name": "theta", "pattern": "theta"}]}, "either `name`"),
    ({"type": "SGD", "weight_decay": -1}, r"optimizer\.weight_decay: must be a number from 0"),
    ({}, "no optimizer named None"),
    ({"type": "Adamw"}, "AdamW"),
    ({"type": "SGD", "momentom": 0.9}, "momentom"),
    ({"type": "SGD", "custom_cfg": [{"name": "nowhere"}]}, "no parameter of the model fits 'nowhere'"),
    ({"type": "SGD", "custom_cfg": [{"nam": "theta"}]}, "Did you mean 'name'"),
    ({"type": "SGD", "custom_cfg": [{"pattern": "("}]}, "not a regular expression"),
    ({"type": "SGD", "grad_clip_cfg": {"name": "Clip"}}, "ClipGradByGlobalNorm"),
])  # fmt: skip
def test_refused_optimizers(cfg, message):
    with pytest.raises(ConfigError, match=message):
        build_optimizer(cfg, Net(), 0.1)


def test_refused_schedules():
    with pytest.raises(ConfigError, match="PolynomialDecay"):
        build_lr_scheduler({"type": "PolynomialDecai"}, 5)
    with pytest.raises(ConfigError, match="no schedule 'LRScheduler'"):
        build_lr_scheduler({"type": "LRScheduler"}, 5)
    with pytest.raises(ConfigError, match="cannot be built"):
        build_lr_scheduler({"type": "PolynomialDecay", "learning_rat": 1}, 5)
    with pytest.raises(ConfigError, match="ReduceOnPlateau needs a loss"):
        build_lr_scheduler({"type": "ReduceOnPlateau", "learning_rate": 0.1}, 5)


class Transformer(paddle.nn.Layer):
    """Names as of PaddleSeg's vision transformers."""

    def __init__(self):
        super().__init__()
        self.backbone = paddle.nn.Layer()
        self.backbone.patch_embed = paddle.nn.Linear(2, 2)
        self.backbone.blocks = paddle.nn.LayerList([paddle.nn.Linear(2, 2) for _ in range(3)])
        self.backbone.get_num_layers = lambda: 3
        self.backbone.no_weight_decay = lambda: {"pos_embed"}
        self.backbone.norm = paddle.nn.LayerNorm(2)
        # PaddleSeg compares the list with whole names, so that it meets the second only.
        self.backbone.pos_embed = self.create_parameter([2, 2])
        self.pos_embed = self.create_parameter([2, 2])
        self.head = paddle.nn.Linear(2, 2)
        self.table = paddle.nn.Layer()
        self.table.bias = self.create_parameter([2, 2])


@pytest.mark.parametrize("kind", ["AdamWDL", "AdamWDL_CAE"])
def test_rates_of_layers_against_the_formula(kind):
    """Rate 0.5 ** (3 - i) for block i, 0.5 ** 4 for the embedding; vectors do not decay in the second."""
    model = Transformer()
    cfg = {"type": kind, "weight_decay": 0.1, "layerwise_decay": 0.5}
    optimizer = build_optimizer({**cfg, "n_layers": 3} if kind == "AdamWDL" else cfg, model, 0.01)
    before = {name: p.numpy().astype(np.float64) for name, p in model.named_parameters()}
    for gradient in (1.0, 2.0):
        sum((p * gradient).sum() for p in model.parameters()).backward()
        optimizer.step()
        optimizer.clear_grad()
    for name, p in model.named_parameters():
        power = 4 if "embed" in name else 3 - int(name.split(".")[2]) if "blocks" in name else 0
        without = name in ("backbone.norm.weight", "pos_embed", "table.bias") or name.endswith(".bias")
        decay = 0.0 if kind == "AdamWDL_CAE" and without else 0.1
        wanted = _adamw(before[name], 0.01 * 0.5**power, decay)
        np.testing.assert_allclose(p.numpy(), wanted, rtol=1e-5, atol=1e-7, err_msg=name)
