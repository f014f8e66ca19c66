# SPDX-License-Identifier: Apache-2.0
"""docs/notebooks/own_data.ipynb runs from its first cell to its last, as somebody would run it."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebooks" / "own_data.ipynb"


def _cells() -> list[str]:
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


def _as_python(cell: str) -> str:
    """`!command` as a call of `shell`, as IPython reads it."""
    lines = [
        f"shell({line[1:]!r})" if line.startswith("!") else line for line in cell.replace("\\\n", " ").splitlines()
    ]
    return "\n".join(lines)


def test_every_cell_is_python_and_holds_no_output():
    for cell in _cells():
        ast.parse(_as_python(cell))
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert all(not cell["outputs"] for cell in content["cells"] if cell["cell_type"] == "code")


_BEFORE = """
import shlex, subprocess, sys

def shell(command):
    program, *arguments = shlex.split(command)
    assert program == "paddle-dnl"
    subprocess.run([sys.executable, "-m", "paddle_dnl", *arguments], check=True)
"""
_AFTER = """
np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-4)
print("end:", json.dumps([progress.best_miou, predictor.classes.names]))
"""


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    program = tmp_path / "notebook.py"
    program.write_text("\n".join([_BEFORE, *map(_as_python, _cells()), _AFTER]))
    environment = dict(os.environ, PYTHONPATH=str(NOTEBOOK.parents[2]))
    command = [sys.executable, str(program)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    best, names = json.loads(done.stdout.split("end: ")[-1])
    assert best > 0.3 and names == ["background", "box", "disc"]
    scores = json.loads((tmp_path / "output/mine/scores/scores.json").read_text())
    assert scores["miou"] == pytest.approx(best, abs=1e-4)
