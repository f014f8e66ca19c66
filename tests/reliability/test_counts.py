# SPDX-License-Identifier: Apache-2.0
"""The counter itself: kinds add up over tests and over processes, and a failed test does not hold."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
HELPERS = Path(__file__).resolve().parents[1] / "helpers"
CONFTEST = "from fault_counts import count_fault, pytest_addoption, pytest_terminal_summary\n"
CASES = """
def test_first(count_fault):
    count_fault("cut files", 3)
    count_fault("cut files")
    count_fault("bombs", 2)

def test_second(count_fault):
    count_fault("cut files", 5)

def test_third(count_fault):
    count_fault("bombs", 7)
    assert False
"""


@pytest.mark.parametrize("processes", [0, 2])
def test_counts_add_up(tmp_path, processes):
    (tmp_path / "conftest.py").write_text(f"import sys\nsys.path.insert(0, {str(HELPERS)!r})\n{CONFTEST}")
    (tmp_path / "test_it.py").write_text(CASES)
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(processes), "--reliability-report", "report/it.json"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 1, run.stdout + run.stderr
    report = json.loads((tmp_path / "report" / "it.json").read_text())
    assert report["counts"] == {
        "bombs": {"tests": 2, "tried": 9, "held": 2},
        "cut files": {"tests": 2, "tried": 9, "held": 9},
    }
    assert any(line.split()[:4] == ["cut", "files", "9", "9"] for line in run.stdout.splitlines())


def test_counts_become_a_page(tmp_path):
    page, tool = tmp_path / "page.md", TESTS.parent / "tools" / "reliability_page.py"
    run = {"python": "3.11.7", "paddle": "3.3.1", "system": "Linux"}
    first = {"bombs": {"tests": 2, "tried": 9, "held": 9}, "cut files": {"tests": 1, "tried": 1, "held": 1}}
    second = {"cut files": {"tests": 3, "tried": 40, "held": 40}}
    for name, counts in (("a", first), ("b", second)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"run": run, "counts": counts}))
    page.write_text(
        "# Page\n<!-- counts: written by tools/reliability_page.py -->\nold\n<!-- end of counts -->\nrest\n"
    )
    command = [sys.executable, str(tool), str(tmp_path / "a.json"), str(tmp_path / "b.json"), "--page", str(page)]
    assert subprocess.run(command).returncode == 0
    text = page.read_text()
    assert "| cut files | 40 | 3 |" in text and "| bombs | 9 | 2 |" in text and "**49**" in text and "old" not in text
    assert text.startswith("# Page\n") and text.endswith("\nrest\n")
    second["cut files"]["held"] = 39
    (tmp_path / "b.json").write_text(json.dumps({"run": run, "counts": second}))
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 1 and "did not hold: cut files" in failed.stderr and page.read_text() == text
