# SPDX-License-Identifier: Apache-2.0
"""A run that resumes with another configuration says so, keeps the old one, and refuses another function."""

from paddle_dnl.errors import CheckpointError

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


def test_a_schedule_that_ended_before_is_refused(tmp_path):
    tiny_training.write_config(tmp_path)
    tiny_training.train(tmp_path, ["iters=8"], save_interval=8)
    with pytest.raises(CheckpointError, match="has done 8 iterations, more than the 2"):
        tiny_training.train(tmp_path, ["iters=2"], resume_model="auto")
