# SPDX-License-Identifier: Apache-2.0
"""What is exported prepares pictures as val.py does: the validation's transforms as they are, none, or a question."""

from paddle_dnl.cli import export, infer, val
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.errors import UsageError

import numpy as np
import paddle
import pytest
import yaml
from tiny_training import TinyNet, write_config

STEPS = {
    "none": [],
    "own means": [{"type": "Normalize", "mean": [0.2, 0.3, 0.4], "std": [0.1, 0.2, 0.3]}],
    "resized": [{"type": "Resize", "target_size": [40, 32]}, {"type": "Normalize"}],
}


def _make(folder, change):
    """The configuration after `change(content)` and the weights of a model."""
    path = write_config(folder)
    content = yaml.safe_load(path.read_text())
    change(content)
    path.write_text(yaml.safe_dump(content))
    paddle.seed(1)
    paddle.save(TinyNet(3).state_dict(), str(folder / "m.pdparams"))
    return ["--config", str(path), "--model_path", str(folder / "m.pdparams")]


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_an_export_classifies_as_val_does(tmp_path, steps):
    given = _make(tmp_path, lambda content: content["val_dataset"].update(transforms=steps))
    out, seen = tmp_path / "out", tmp_path / "seen"
    assert val.main([*given, "--device", "cpu", "--save_dir", str(tmp_path / "val"), "--save_prob"]) == 0
    assert export.main([*given, "--save_dir", str(out), "--output_op", "none"]) == 0
    assert read_deploy_config(out).transforms == steps
    listed = [line.split()[0] for line in (tmp_path / "data" / "val.txt").read_text().splitlines()]
    (tmp_path / "list.txt").write_text("\n".join(str(tmp_path / "data" / name) for name in listed))
    words = ["--config", str(out), "--image_path", str(tmp_path / "list.txt"), "--save_dir", str(seen), "--save_prob"]
    assert infer.main([*words, "--device", "cpu"]) == 0
    for name in listed:
        files = (place / name.replace(".png", ".npz") for place in (tmp_path / "val" / "prob", seen / "probabilities"))
        wanted, found = (np.load(path)["probabilities"].astype(np.float32) for path in files)
        np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_without_a_validation_the_export_asks(tmp_path):
    given = _make(tmp_path, lambda content: content.pop("val_dataset"))
    with pytest.raises(UsageError, match="has no val_dataset, which would define the preprocessing"):
        export.main([*given, "--save_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    told = "export.transforms=[{type: Normalize, mean: [0.1,0.1,0.1]}]"
    assert export.main([*given, "--save_dir", str(tmp_path / "out"), "--opts", told]) == 0
    assert read_deploy_config(tmp_path / "out").transforms == [{"type": "Normalize", "mean": [0.1, 0.1, 0.1]}]
