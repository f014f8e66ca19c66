# SPDX-License-Identifier: Apache-2.0
"""Sizes in configurations and command lines that no machine holds: one line before memory is asked for."""

import resource
import shutil

from paddle_dnl.config.reading import read_yaml_mapping, to_yaml
from paddle_dnl.data.transforms import sample
from paddle_dnl.deployment.export.exporter import export_model
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import ConfigError, DataError, PaddleDnlError
from paddle_dnl.weights.manifest import seal

import numpy as np
import pytest
import tiny_export
import tiny_training

HUGE = 10**6
STEPS = {
    "Resize": ({"target_size": [HUGE, HUGE]}, "target_size"),
    "Resize, multiple": ({"type": "Resize", "target_size": [8, 8], "size_divisor": HUGE}, "resizing"),
    "Resize, number without end": ({"type": "Resize", "target_size": [10**400, 8]}, "target_size"),
    "ResizeByLong": ({"long_size": HUGE}, "resizing"),
    "ResizeByLong, infinite": ({"type": "ResizeByLong", "long_size": float("inf")}, "long_size"),
    "ResizeByShort": ({"short_size": HUGE}, "resizing"),
    "LimitLong": ({"min_long": HUGE}, "resizing"),
    "Padding": ({"target_size": [HUGE, HUGE]}, "target_size"),
    "PaddingByAspectRatio": ({"aspect_ratio": 1e9}, "resizing|target_size|padding"),
}  # fmt: skip
TRAIN_STEPS = STEPS | {
    "ResizeStepScaling": ({"min_scale_factor": 1e6, "max_scale_factor": 1e6}, "resizing"),
    "ResizeRangeScaling": ({"min_value": HUGE, "max_value": HUGE}, "resizing"),
    "RandomPaddingCrop": ({"crop_size": [HUGE, HUGE]}, "crop_size"),
    "RandomScaleAspect": ({"scale_range": [1e6, 1e6]}, "resizing"),
}


def _step(name, steps):
    values, says = steps[name]
    return {"type": name, **values}, says


@pytest.fixture(autouse=True)
def bounded_memory():
    """Address space: what is asked for in vain is a MemoryError and not the end of the machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (24 << 30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def _refused(action, says, kind=PaddleDnlError):
    with pytest.raises(kind, match=says) as raised:
        action()
    text = str(raised.value)
    assert "\n" not in text and len(text) < 1000
    return text


@pytest.mark.parametrize(
    ("section", "name"),
    [*(("train_dataset", name) for name in TRAIN_STEPS), *(("val_dataset", name) for name in STEPS)],
)
def test_transforms_of_a_training(tmp_path, name, section):
    step, says = _step(name, TRAIN_STEPS)
    path = tiny_training.write_config(tmp_path)
    config = read_yaml_mapping(path)
    config[section]["transforms"] = [step, {"type": "Normalize"}]
    path.write_text(to_yaml(config))
    _refused(lambda: tiny_training.train(tmp_path, do_eval=True), says)


@pytest.mark.parametrize("name", STEPS)
def test_transforms_of_a_deploy_yaml(exported, tmp_path, name):
    step, says = _step(name, STEPS)
    shutil.copytree(exported, tmp_path / "export")
    path = tmp_path / "export/deploy.yaml"
    content = read_yaml_mapping(path)
    content.pop("checksum")
    content["Deploy"]["transforms"] = [step]
    path.write_text(seal(to_yaml(content)))

    def use():
        Predictor(tmp_path / "export").predict([np.zeros((8, 8, 3), np.uint8)])

    text = _refused(use, says)
    assert "deploy.yaml" in text or "transforms" in text


@pytest.mark.parametrize("shape", [[1, 3, HUGE, HUGE], [HUGE, 3, 512, 1024], [1, HUGE, 8, 8], [10**30, 3, 8, 8]])
def test_input_shapes_of_an_export(tmp_path, shape):
    def use():
        export_model(tiny_export.ColorNet(), tmp_path / "export", input_shape=shape, transforms=[])

    _refused(use, "--input_shape.*too large", ConfigError)
    assert not (tmp_path / "export").exists()


def test_a_picture_that_is_as_large_may_be_resized():
    """The bound is for what a configuration makes of a picture, not for large pictures."""
    large = {"img": np.broadcast_to(np.uint8(0), (1 << 15, 1 << 15))}
    sample.require_size(large, 1 << 15, 1 << 15, "resizing")
    with pytest.raises(DataError, match="resizing an image of 32768x32768"):
        sample.require_size(large, 1 << 15, (1 << 15) + 1, "resizing")
