# SPDX-License-Identifier: Apache-2.0
"""Flags of val.py and predict.py against `test_config`: what was typed wins, and nothing typed is ignored in silence."""

from pathlib import Path

from paddle_dnl.cli import predict, val
from paddle_dnl.cli._arguments import test_settings as settings_of  # not a test
from paddle_dnl.errors import UsageError
from paddle_dnl.log import logger

import paddle
import pytest

PUBLISHED = {"aug_eval": True, "scales": [0.5, 1.0, 1.75], "flip_horizontal": True, "batch_size": 2}
WINDOWS = {"is_slide": True, "crop_size": [769, 769], "stride": [513, 513]}


class Config:
    def __init__(self, test_config):
        self.test_config = dict(test_config)


def resolved(test_config, *flags, module=val, switch="aug_eval"):
    extra = ["--image_path", "i"] if module is predict else []
    args = module.make_parser().parse_args(["--config", "c.yml", "--model_path", "m", *extra, *flags])
    return settings_of(args, Config(test_config), switch)


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(logger, "info", lines.append)
    monkeypatch.setattr(logger, "warning", lines.append)
    return lines


@pytest.mark.parametrize("test_config, flags, expected", [
    (PUBLISHED, (), PUBLISHED),
    (PUBLISHED, ("--scales", "1.0"), {**PUBLISHED, "scales": [1.0]}),
    (PUBLISHED, ("--scales", "1.0", "--no-flip_horizontal"), {**PUBLISHED, "scales": [1.0], "flip_horizontal": False}),
    (PUBLISHED, ("--no-aug_eval",), {"aug_eval": False, "batch_size": 2}),
    (PUBLISHED, ("--flip_vertical",), {**PUBLISHED, "flip_vertical": True}),
    ({}, ("--scales", "0.5", "1.0"), {"aug_eval": True, "scales": [0.5, 1.0]}),
    ({}, ("--flip_horizontal",), {"aug_eval": True, "flip_horizontal": True}),
    ({}, ("--scales", "1.0"), {}),
    ({}, ("--aug_eval", "--scales", "0.75"), {"aug_eval": True, "scales": [0.75]}),
    (WINDOWS, ("--stride", "256", "256"), {**WINDOWS, "stride": [256, 256]}),
    (WINDOWS, ("--no-is_slide",), {**WINDOWS, "is_slide": False}),
    ({"average": "softmax"}, ("--average", "logits"), {"average": "logits"}),
])  # fmt: skip
def test_what_was_typed_wins(test_config, flags, expected, said):
    assert resolved(test_config, *flags) == expected
    predicted = tuple(flag.replace("aug_eval", "aug_pred") for flag in flags)
    assert resolved(test_config, *predicted, module=predict, switch="aug_pred") == expected


def test_what_is_implied_or_without_effect_is_said(said):
    resolved({}, "--scales", "0.5", "1.0")
    assert said.pop() == "--scales implies --aug_eval"
    resolved({}, "--aug_eval")
    assert "--aug_eval changes nothing: neither flags nor test_config give scales or flips" in said.pop()
    resolved({}, "--aug_eval", "--flip_horizontal")
    resolved(PUBLISHED)
    resolved({}, "--scales", "1.0")
    assert not said


@pytest.mark.parametrize("flags, message", [
    (("--no-aug_eval", "--scales", "0.5"), "--no-aug_eval contradicts --scales"),
    (("--is_slide",), "--is_slide needs --crop_size W H and --stride W H"),
    (("--is_slide", "--crop_size", "8", "8", "--stride", "0", "8"), "must be positive"),
])  # fmt: skip
def test_contradictions_are_refused(flags, message):
    with pytest.raises(UsageError, match=message):
        resolved({}, *flags)


@pytest.mark.parametrize("flags, batch_size", [((), 2), (("--batch_size", "4"), 4), (("--batch_size", "1"), 1)])
def test_the_typed_batch_size_reaches_the_evaluation(flags, batch_size, tmp_path, monkeypatch):
    """Through the program itself: the fault was in the order in which val.py put its settings together."""
    seen = {}
    monkeypatch.setattr("paddle_dnl.evaluation.evaluator.evaluate", lambda *args, **settings: seen.update(settings))
    monkeypatch.setattr("paddle_dnl.models.build.build_model", lambda *args, **kwargs: paddle.nn.Layer())
    monkeypatch.setattr("paddle_dnl.registry.build", lambda *args: None)
    monkeypatch.setattr("paddle_dnl.data.checking.check.check_dataset", lambda *args, **kwargs: None)
    monkeypatch.setattr("paddle_dnl.profile.memory_plan.announce_evaluation", lambda *args: None)
    root = Path(__file__).resolve().parents[2]
    config = root / "configs/dnlnet/dnlnet_resnet50_os8_cityscapes_1024x512_80k.yml"
    options = ("--opts", "test_config.batch_size=2", "test_config.scales=0.5,1.0", "test_config.aug_eval=true")
    val.main(["--config", str(config), "--model_path", "m", "--device", "cpu", *flags, "--scales", "1.0", *options])
    assert (seen["batch_size"], seen["scales"], seen["aug_eval"]) == (batch_size, [1.0], True)
