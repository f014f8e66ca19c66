# SPDX-License-Identifier: Apache-2.0
"""Channels-last by Paddle's layout tuning: what is switched on and off, and that nothing else depends on it."""

import types

from paddle_dnl.models.backbones.resnet import ResNet18
from paddle_dnl.nn import channels_last

import numpy as np
import paddle
import pytest
from paddle.base import core

VIEWS = "FLAGS_use_stride_kernel"


@pytest.fixture
def switches(monkeypatch):
    """(enabled, views) at each change of the layout tuning; Paddle's own function still runs."""
    found, real = [], paddle.incubate.autotune.set_config

    def record(config):
        found.append((config["layout"]["enable"], paddle.get_flags(VIEWS)[VIEWS]))
        real(config)

    monkeypatch.setattr(paddle.incubate.autotune, "set_config", record)
    return found


def test_tuning_and_views_are_restored_also_after_an_error(switches):
    def fails(x):
        assert not paddle.get_flags(VIEWS)[VIEWS]
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        channels_last.run(fails, paddle.ones([1, 1, 2, 2]))
    assert switches == [(True, False), (False, False)]
    assert paddle.get_flags(VIEWS)[VIEWS] and not core.use_layout_autotune()


@pytest.mark.parametrize("training", [True, False])
def test_a_backbone_gives_the_same_maps_and_gradients_also_of_a_view(switches, training):
    values = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype("float32")
    results = []
    for wanted in (False, True):
        paddle.seed(0)
        backbone = ResNet18()
        backbone.train() if training else backbone.eval()
        backbone.channels_last = wanted
        x = paddle.to_tensor(values)[:, :, :, ::-1]  # a view where Paddle has views
        maps = backbone(x)
        sum(y.sum() for y in maps).backward()
        gradients = [p.grad for p in backbone.parameters() if p.grad is not None]
        results.append([*maps, *gradients, *backbone.state_dict().values()])
    assert len(switches) == 2 and len(results[0]) == len(results[1])
    for plain, other in zip(*results, strict=True):
        np.testing.assert_array_equal(plain.numpy(), other.numpy())


def test_maps_are_turned_back_only_where_the_tuning_took_place(monkeypatch):
    seen = []
    monkeypatch.setattr(paddle, "transpose", lambda x, perm: seen.append(perm) or x)
    monkeypatch.setattr(channels_last, "core", types.SimpleNamespace(use_layout_autotune=lambda: True))
    channels_last.run(lambda x: [x, x], paddle.ones([1, 1, 2, 2]))
    assert seen == [[0, 1, 2, 3]] * 2
    monkeypatch.setattr(channels_last, "core", types.SimpleNamespace(use_layout_autotune=lambda: False))
    channels_last.run(lambda x: [x, x], paddle.ones([1, 1, 2, 2]))
    assert len(seen) == 2
