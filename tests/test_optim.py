"""Schedules and optimizers: the update itself against NumPy, parameter groups, refusals."""

from paddle_dnl.errors import ConfigError
from paddle_dnl.optim import build_lr_scheduler, build_optimizer

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


@pytest.mark.parametrize("kind", ["SGD", "sgd", "Momentum"])
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
        w, m, v, decay = before[name], 0.0, 0.0, 0.0 if "theta" in name else 0.1
        for t, g in enumerate((1.0, 2.0), 1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            w = w * (1 - 0.01 * decay) - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(value, w, rtol=1e-5, err_msg=name)


def test_clip_by_global_norm():
    cfg = {"type": "SGD", "grad_clip_cfg": {"name": "ClipGradByGlobalNorm", "clip_norm": 1.0}}
    before, after = _two_steps(cfg)
    moved = np.concatenate([(before[n] - after[n]).ravel() for n in before])
    # Two steps of length lr * clip_norm in the same direction.
    np.testing.assert_allclose(np.linalg.norm(moved), 0.2, rtol=1e-4)


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


@pytest.mark.parametrize("cfg, message", [
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
    with pytest.raises(ConfigError, match="cannot be built"):
        build_lr_scheduler({"type": "PolynomialDecay", "learning_rat": 1}, 5)
