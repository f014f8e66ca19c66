# SPDX-License-Identifier: Apache-2.0
"""What an evaluation between training steps uses of `test_config`."""

from paddle_dnl.config import Config
from paddle_dnl.errors import ConfigError
from paddle_dnl.training import trainer

import paddle
import pytest
from tiny_training import train, write_config

AUGMENTED = ["test_config.aug_eval=true", "test_config.scales=0.5,1.0", "test_config.flip_horizontal=true"]


@pytest.mark.parametrize("opts, passes", [
    (AUGMENTED, True),  # PaddleSeg's meaning of test_config
    ([*AUGMENTED, "test_config.while_training={aug_eval: false}"], False),
], ids=["as test_config", "plain while training"])  # fmt: skip
def test_validation_between_steps(tmp_path, monkeypatch, opts, passes):
    seen = []

    def recorded(model, dataset, **settings):
        seen.append(settings)
        return evaluate(model, dataset, **settings)

    evaluate = trainer.evaluate
    monkeypatch.setattr(trainer, "evaluate", recorded)
    train(tmp_path, [*opts, "iters=2"], do_eval=True, use_vdl=True)
    assert [settings["aug_eval"] for settings in seen] == [passes]
    assert Config(str(tmp_path / "config.yml"), opts=opts).test_config["aug_eval"] is True


def test_no_process_is_forked_for_it(tmp_path, monkeypatch):
    """While threads of the training's own loader run in Paddle, whose locks the process would find taken for ever."""
    made, make = [], paddle.io.DataLoader
    monkeypatch.setattr(
        paddle.io, "DataLoader", lambda *args, **more: made.append(more["num_workers"]) or make(*args, **more)
    )
    train(tmp_path, ["iters=2"], do_eval=True, num_workers=1)
    assert made == [1]


@pytest.mark.parametrize("option, message", [
    ("{aug: false}", "test_config.while_training.aug: unknown key. Did you mean 'aug_eval'?"),
    ("{is_slide: true}", "test_config.while_training.crop_size: missing"),
    ("7", "test_config.while_training: expected a mapping, got 7"),
    ("{while_training: {}}", "test_config.while_training.while_training: stands in test_config only"),
])  # fmt: skip
def test_what_is_wrong_in_it_is_named(tmp_path, option, message):
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        Config(str(write_config(tmp_path)), opts=[f"test_config.while_training={option}"])
