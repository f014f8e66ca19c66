# SPDX-License-Identifier: Apache-2.0
"""Programs started as several ranks: train and val work together, predict and infer share the pictures, rank 0 does the rest."""

import importlib
import subprocess
import sys

from paddle_dnl.cli.programs import PROGRAMS

import cv2
import numpy as np
import pytest
from started_programs import ROOT, environment

TOGETHER = {"train": "group", "val": "group", "predict": "share", "infer": "share"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_rank_does(name):
    found = getattr(importlib.import_module(PROGRAMS[name].module), "UNDER_LAUNCH", None)
    assert found == TOGETHER.get(name)


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_0_prepares_data_alone(tmp_path, rank):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for i in range(10):
            cv2.imwrite(str(tmp_path / folder / f"{i}.png"), np.full((4, 4), i % 2, np.uint8))
    variables = environment(PYTHONPATH=str(ROOT), PADDLE_TRAINERS_NUM="2", PADDLE_TRAINER_ID=str(rank))
    words = ["data", "split", str(tmp_path), "--images", "images", "--labels", "labels"]
    subprocess.run([sys.executable, "-m", "paddle_dnl", *words], env=variables, check=True)
    assert (tmp_path / "train.txt").exists() is (rank == 0)
