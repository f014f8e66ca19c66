# SPDX-License-Identifier: Apache-2.0
"""`export.py --for_fd`: the names of PaddleSeg's develop branch, run by infer.py, and one set of files at a time."""

from paddle_dnl.cli import export, infer
from paddle_dnl.files.outputs import JOURNAL

import numpy as np
import paddle
import pytest
import yaml
from PIL import Image
from tiny_training import train

GRAPH = "json" if paddle.__version__.startswith("3") else "pdmodel"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(folder)
    return folder


def _export(trained, out, *flags):
    weights = trained / "output/iter_10/model.pdparams"
    words = [
        "--config",
        trained / "config.yml",
        "--model_path",
        weights,
        "--save_dir",
        out,
        "--input_shape",
        1,
        3,
        24,
        24,
    ]
    assert export.main([*map(str, words), *flags]) == 0
    return sorted(path.name for path in out.iterdir() if path.name != JOURNAL and not path.name.endswith(".info"))


def _labels(trained, config, out):
    words = ["--config", config, "--image_path", trained / "data/image_0.png", "--save_dir", out, "--device", "cpu"]
    assert infer.main([*map(str, words)]) == 0
    return np.asarray(Image.open(out / "image_0.png"))


def test_names_and_results(trained, tmp_path):
    plain = _export(trained, tmp_path / "a")
    fast = _export(trained, tmp_path / "b", "--for_fd", "--output_op", "softmax")
    assert fast == sorted(["inference.yml", f"inference.{GRAPH}", "inference.pdiparams"])
    section = yaml.safe_load((tmp_path / "b/inference.yml").read_text())["Deploy"]
    assert (section["model"], section["params"]) == (f"inference.{GRAPH}", "inference.pdiparams")
    assert set(section["sha256"]) == {f"inference.{GRAPH}", "inference.pdiparams"}
    found = [
        _labels(trained, tmp_path / file, tmp_path / name)
        for file, name in (("a/deploy.yaml", "x"), ("b/inference.yml", "y"))
    ]
    np.testing.assert_array_equal(*found)
    assert _export(trained, tmp_path / "b") == plain, "files of both names would contradict each other"
    assert _export(trained, tmp_path / "b", "--for_fd") == fast
