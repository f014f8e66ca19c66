# SPDX-License-Identifier: Apache-2.0
"""docs/notebooks/own_data.ipynb runs from its first cell to its last, as somebody would run it."""

import ast
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebooks" / "own_data.ipynb"


def _cells() -> list[str]:
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


def _as_python(cell: str) -> str:
    """`!command` as a call of `shell`, as IPython reads it."""
    lines = [f"shell({line[1:]!r})" if line.startswith("!") else line for line in cell.splitlines()]
    return "\n".join(lines)


def test_every_cell_is_python_and_holds_no_output():
    for cell in _cells():
        ast.parse(_as_python(cell))
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert all(not cell["outputs"] for cell in content["cells"] if cell["cell_type"] == "code")


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = str(NOTEBOOK.parents[2])
    environment = dict(os.environ, PYTHONPATH=root)

    def shell(command: str) -> None:
        program, *arguments = shlex.split(command)
        assert program == "paddle-dnl"
        subprocess.run([sys.executable, "-m", "paddle_dnl", *arguments], check=True, env=environment)

    space = {"shell": shell, "__name__": "notebook"}
    for cell in _cells():
        exec(compile(_as_python(cell), str(NOTEBOOK), "exec"), space)
    assert space["progress"].best_miou > 0.3
    assert space["predictor"].classes.names == ("background", "box", "disc")
    np.testing.assert_allclose(space["probabilities"].sum(0), 1, atol=1e-4)
    scores = json.loads((tmp_path / "output/mine/scores/scores.json").read_text())
    assert scores["miou"] == pytest.approx(space["progress"].best_miou, abs=1e-4)
