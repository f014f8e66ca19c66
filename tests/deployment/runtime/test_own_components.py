# SPDX-License-Identifier: Apache-2.0
"""Exported folders with a user's own validation transform: the folder names its module, and infer.py imports it."""

import os
import subprocess
import sys
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.errors import ExportError

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_export import NORMALIZE, ColorNet, blocks, export_model, own_transform

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path):
    steps = [{"type": "SwapRedAndBlue"}, dict(NORMALIZE)]
    with own_transform(tmp_path):
        export_model(ColorNet(), tmp_path / "out", input_shape=[1, 3, 32, 64], transforms=steps)
        yield tmp_path


def _infer(folder, *words):
    command = [sys.executable, str(ROOT / "deploy/python/infer.py"), "--config", "out", "--image_path", "a.png", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith(("Error", "Traceback"))]


def test_the_folder_names_the_module(folder):
    assert read_deploy_config(folder / "out").components == {"SwapRedAndBlue": "my_swap"}
    image, label = blocks(2, 4, 16)
    cv2.imwrite(str(folder / "a.png"), image[..., ::-1])
    status, lines = _infer(folder, "--save_dir", "no")
    assert status == 1 and len(lines) == 1 and "SwapRedAndBlue of the module my_swap" in lines[0], lines
    assert "--custom_imports my_swap" in lines[0] and not (folder / "no").exists()
    assert _infer(folder, "--save_dir", "yes", "--custom_imports", "my_swap.py") == (0, [])
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "yes/a.png")), label)


def test_what_cannot_be_imported_is_refused_at_the_export(folder, monkeypatch):
    monkeypatch.setattr(registry.find("SwapRedAndBlue", "transform", ""), "__module__", "__main__")
    with pytest.raises(ExportError, match="transforms.0: SwapRedAndBlue is defined in the program that runs"):
        export_model(ColorNet(), folder / "new", input_shape=[1, 3, 32, 64], transforms=[{"type": "SwapRedAndBlue"}])
    assert not (folder / "new").exists()
    export_model(ColorNet(), folder / "new", input_shape=[1, 3, 32, 64], transforms=[dict(NORMALIZE)])
    assert (
        read_deploy_config(folder / "new").components == {}
        and "components" not in (folder / "new/deploy.yaml").read_text()
    )
