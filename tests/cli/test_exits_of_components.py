# SPDX-License-Identifier: Apache-2.0
"""A component that calls `exit()`, as UPerNetViTAdapter of PaddleSeg does: one line that names the place, a status of failure."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from paddle_dnl import errors

import pytest
import tiny_training

ROOT = Path(__file__).resolve().parents[2]
# What ends the program stands in the configuration: `at` is a place in this file.
MODULE = """
import os
from paddle_dnl.registry import MODELS, TRANSFORMS
from paddle import nn
from paddle.io import get_worker_info

AT = os.environ.get("AT", "")
if AT == "import":
    exit()

@MODELS.add_component
class Leaving(nn.Layer):
    def __init__(self, num_classes):
        super().__init__()
        self.cls = nn.Conv2D(3, num_classes, 1)
        if AT == "constructor":
            exit()

    def forward(self, x):
        if AT == "forward":
            raise SystemExit(0)
        return [self.cls(x)] * (2 if self.training else 1)

@TRANSFORMS.add_component
class Step:
    def __call__(self, data):
        if AT == "transform" or AT == "worker" and get_worker_info() is not None:
            exit(0)
        return data
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    work = tmp_path_factory.mktemp("leaving")
    (work / "leaving.py").write_text(MODULE)
    path = tiny_training.write_config(work)
    text = path.read_text().replace("TinyNet", "Leaving").replace("iters: 10", "iters: 1")
    text = text.replace("    - {type: RandomHorizontalFlip}", "    - {type: Step}")
    path.write_text(text.replace("mode: val\n  transforms: [", "mode: val\n  transforms: [{type: Step}, "))
    assert path.read_text().count("Step") == 2
    return work


def _run(folder, at, program, *words):
    command = [sys.executable, "-m", "paddle_dnl", program, "--config", "config.yml", "--custom_imports", "leaving.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "AT": at}
    done = subprocess.run([*command, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, [line for line in done.stderr.splitlines() if line.startswith(("Error", "Traceback"))]


@pytest.mark.parametrize("at, program, words", [
    ("import", "train", ["--save_dir", "{out}"]),
    ("constructor", "train", ["--save_dir", "{out}"]),
    ("forward", "train", ["--save_dir", "{out}"]),
    ("worker", "train", ["--save_dir", "{out}", "--num_workers", "1"]),
    ("transform", "val", ["--model_path", "w.pdparams"]),
    ("forward", "export", ["--model_path", "w.pdparams", "--input_shape", "1", "3", "24", "24", "--save_dir", "{out}"]),
])  # fmt: skip
def test_every_program_fails_and_names_the_place(folder, tmp_path, at, program, words):
    if program != "train" and not (folder / "w.pdparams").exists():
        assert _run(folder, "", "train", "--save_dir", "out")[0] == 0
        (folder / "out/iter_1/model.pdparams").rename(folder / "w.pdparams")
    status, lines = _run(folder, at, program, *(word.format(out=tmp_path / "out") for word in words))
    assert status == 1 and len(lines) == 1 and "leaving.py, line " in lines[0], lines
    assert "exit(" in lines[0] and not list(tmp_path.rglob("*.pdparams"))


def test_flags_and_help_keep_their_status(folder):
    assert _run(folder, "", "train", "--help")[0] == 0
    assert _run(folder, "", "train", "--save_dir")[0] == 2


TOOLS = [
    path
    for path in sorted(ROOT.glob("tools/*.py"))
    if "    run(" in path.read_text() and "argparse" in path.read_text()
]


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.name)
def test_flags_and_help_of_the_repository_s_tools(tool):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for flag, status, said in (("--help", 0, ""), ("--nonsense", 2, "unrecognized arguments: --nonsense")):
        done = subprocess.run(
            [sys.executable, tool, flag], env=environment, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == status, done.stderr
        assert "Error" not in done.stderr and done.stderr.strip().endswith(said), done.stderr


def test_whose_exit_it_is():
    parser = argparse.ArgumentParser()

    def caught(call):
        with pytest.raises(SystemExit) as found:
            call()
        return errors.exit_of_component(found.value)

    assert "exit(3) in " in caught(lambda: sys.exit(3))
    # Code of others that uses argparse is code of others.
    assert "exit(0) in " in caught(lambda: parser.parse_args(["--help"]))
    from paddle_dnl.cli.val import main

    assert caught(lambda: main(["--help"])) is None
