"""The counter itself: kinds add up over tests and over processes, and a failed test does not hold."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent.parent
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
    (tmp_path / "conftest.py").write_text(f"import sys\nsys.path.insert(0, {str(TESTS)!r})\n{CONFTEST}")
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
