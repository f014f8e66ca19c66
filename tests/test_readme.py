# SPDX-License-Identifier: Apache-2.0
"""The two READMEs say the same commands, and the commands exist."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from paddle_dnl.cli.programs import PROGRAMS, split_command
from paddle_dnl.config.lookup import zoo_configs

import pytest
from tiny_training import make_data

ROOT = Path(__file__).resolve().parent.parent


def _blocks(name: str) -> list[str]:
    return re.findall(r"```\w+\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.S)


def _commands() -> list[str]:
    lines = [line for block in _blocks("README.md") for line in block.splitlines()]
    return [line for line in lines if line.startswith(("python ", "make ", "paddle-dnl "))]


def test_chinese_readme_keeps_step():
    # Comments in blocks are translated.
    english, chinese = ([re.sub(r"  +# .*", "", block) for block in _blocks(f"README{end}.md")] for end in ("", "_CN"))
    assert english == chinese
    headings = [
        len(re.findall(r"^## ", (ROOT / n).read_text(encoding="utf-8"), re.M)) for n in ("README.md", "README_CN.md")
    ]
    assert headings[0] == headings[1]


@pytest.mark.parametrize("command", _commands())
def test_commands_name_things_that_exist(command):
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
        return
    if words[0] == "paddle-dnl":
        name, arguments = split_command(words[1:])
        importlib.import_module(PROGRAMS[name].module).make_parser().parse_args(arguments)
        named = arguments[arguments.index("--config") + 1] if "--config" in arguments else ""
        assert named.endswith("deploy.yaml") or not named or named in zoo_configs()
        return
    script = next(word for word in words if word.endswith(".py"))
    assert (ROOT / script).is_file()
    for word in words:
        if word.startswith("configs/"):
            assert (ROOT / word).is_file()


def test_commands_parse():
    """Every flag in the README is one that the program knows."""
    from paddle_dnl.cli import export, infer, predict, train, val

    modules = {"train.py": train, "val.py": val, "predict.py": predict, "export.py": export, "infer.py": infer}
    parsed = 0
    for command in _commands():
        words = shlex.split(command)
        at = next((i for i, word in enumerate(words) if word.endswith(".py")), None)
        module = modules.get(Path(words[at]).name) if at else None
        if module is not None:
            getattr(module, "parse_args", module.make_parser().parse_args)(words[at + 1 :])
            parsed += 1
    assert parsed >= 8


def test_the_example_on_objects_runs(tmp_path):
    """As it stands in both READMEs, but for the length of the run; the data and the picture are made here."""
    block = next(block for block in _blocks("README.md") if "paddle_dnl.train(model" in block)
    assert block in _blocks("README_CN.md") and block.count("iters=1000") == 1
    make_data(tmp_path / "data/mine")
    shutil.copy(tmp_path / "data/mine/image_0.png", tmp_path / "street.png")
    words = [sys.executable, "-c", block.replace("iters=1000", "iters=2")]
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "iter: 2/2" in done.stdout and done.stdout.count("[EVAL] #Images: 3 mIoU:") == 2
    assert (tmp_path / "output/mine/pictures/pseudo_color_prediction/street.png").is_file()


def test_test_command_is_what_ci_runs():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "make test\n" in _blocks("README.md")
