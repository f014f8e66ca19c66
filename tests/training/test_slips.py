# SPDX-License-Identifier: Apache-2.0
"""Slips in configurations, through train.py: one warning for those of PaddleSeg's own files, one line of error for others."""

from paddle_dnl.cli import train
from paddle_dnl.errors import ConfigError
from paddle_dnl.evaluation.transform_check import require_valid_labels

import numpy as np
import pytest
import tiny_training


def _train(folder, *changes):
    path = tiny_training.write_config(folder)
    text = path.read_text().replace("iters: 10", "iters: 1")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return train.main(["--config", str(path), "--save_dir", str(folder / "output"), "--device", "cpu"])


@pytest.mark.parametrize("change, line", [
    (("mode: train", "mode: train\n  shuffle: true"), "WARNING: train_dataset.shuffle: ignored"),
    (("mode: val", "mode: val\n  shuffle: false"), "WARNING: val_dataset.shuffle: ignored"),
    (("model: {type: TinyNet, num_classes: 3}", "model: {type: TinyNet}"), ""),
    (("  num_classes: 3\n", ""), ""),
])  # fmt: skip
def test_trained_with_at_most_one_warning(tmp_path, capfd, change, line):
    assert _train(tmp_path, change) == 0
    said = capfd.readouterr().out
    assert not line or said.count(line) == 1
    assert (tmp_path / "output/iter_1/model.pdparams").is_file()


@pytest.mark.parametrize("changes, message", [
    ([("CrossEntropyLoss", "FocalLoss")],
     r"^loss.types.0: FocalLoss cannot be computed from logits \[2, 3, 24, 24\].*channel of logit should be 2"),
    ([("CrossEntropyLoss}", "MixedLoss, losses: [{type: FocalLoss}], coef: [1]}")], "FocalLoss cannot be computed"),
    ([("mode: train", "mode: val")], "train_dataset.mode: val leaves labels as they are stored.*write `mode: train`"),
    ([("  mode: train\n", "")], "train_dataset.mode: missing; Dataset needs it"),
    ([("model: {type: TinyNet, num_classes: 3}", "model: {type: TinyNet}"), ("  num_classes: 3\n", "")],
     "train_dataset.num_classes: missing"),
    ([("{type: RandomDistort, brightness_range: 0.4}", "{type: ScalePadding, target_size: [37, 37]}")],
     "train_dataset.transforms.1: ScalePadding makes labels of .*neither a class nor ignored"),
])  # fmt: skip
def test_one_line_and_no_checkpoint(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message) as refused:
        _train(tmp_path, *changes)
    assert len(str(refused.value).splitlines()) == 1
    assert not list(tmp_path.rglob("*.pdparams"))


def test_transforms_that_keep_or_renumber_labels_pass():
    class Step:
        def __init__(self, work):
            self.work = work

        def __call__(self, data):
            data["label"] = self.work(data["label"])
            return data

    class Set:
        num_classes, ignore_index = 3, 255

        def __init__(self, work):
            self.transforms = type("Compose", (), {"transforms": [Step(work)]})

    for work in (lambda label: label, lambda label: np.where(label == 255, 255, 2 - label), lambda label: label[::-1]):
        require_valid_labels(Set(work))
    with pytest.raises(ConfigError, match="Step makes labels of 3"):
        require_valid_labels(Set(lambda label: np.where(label == 255, 255, label + 1)))
