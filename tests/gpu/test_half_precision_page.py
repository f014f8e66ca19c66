# SPDX-License-Identifier: Apache-2.0
"""The page of `tools/half_precision.py` is made in parts, by several processes, without losing rows."""

import multiprocessing
import runpy
from pathlib import Path
from types import SimpleNamespace

from paddle_dnl.errors import UsageError
from paddle_dnl.gpu import simulation
from paddle_dnl.gpu.coverage import FAMILIES

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = "Settings: Paddle 3.3.1, 100 steps, crops of 128x128, batch 2."


def tool(name: str):
    return runpy.run_path(str(ROOT / "tools/half_precision.py"))[name]


def add_often(path, family, start):
    add_row = tool("add_row")
    start.wait(60)
    for count in range(30):
        add_row(path, SETTINGS, family, f"| {family} | {count} | | | | | | now |")


def test_rows_of_two_processes_are_all_kept(tmp_path):
    path, families = tmp_path / "page.md", list(FAMILIES)[3:5]
    tool("add_row")(path, SETTINGS, "DGMN2, SETR-MLA", "| DGMN2, SETR-MLA | 1.5 | | | | | | before |")
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Barrier(2)
    writers = [spawn.Process(target=add_often, args=(path, family, start)) for family in families]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    rows = [
        line for line in path.read_text().splitlines() if line.startswith(tuple(f"| {name} |" for name in FAMILIES))
    ]
    assert [row.split(" | ")[0][2:] for row in rows] == list(FAMILIES), "one row each, in order"
    assert [row.split(" | ")[1] for row in rows if "not run" not in row] == ["29", "29", "1.5"]


def test_the_program_keeps_other_rows_and_refuses_other_settings(tmp_path, monkeypatch, capsys):
    path, main = tmp_path / "page.md", tool("main")
    curve = SimpleNamespace(end=2.0, is_finite=True, skipped=0, largest={"head": 100.0})
    monkeypatch.setattr(simulation, "small_config", lambda family, data, steps: None)
    monkeypatch.setattr(simulation, "train_in", lambda config, precision: curve)
    for family in ("DMNet, PaddleSeg", "DGMN2, SETR-MLA"):
        assert main(["--families", family, "--page", str(path)]) == 0
        assert "+0.00%" in capsys.readouterr().out
    made = path.read_text()
    assert made.count("| 2.0000 | +0.00% | 0 | +0.00% | 655 | `head` | 20") == 2 and made.count("not run") == 8
    with pytest.raises(UsageError, match="100 steps.* this run .*7 steps"):
        main(["--families", "DMNet, PaddleSeg", "--page", str(path), "--steps", "7"])
    assert path.read_text() == made


def test_the_page_in_the_documents_is_one_that_can_be_continued():
    path = ROOT / "docs/half_precision.md"
    rows = tool("rows_of")(path, next(line for line in path.read_text().splitlines() if line.startswith("Settings: ")))
    assert len(rows) >= 4 and tool("page")(rows, SETTINGS) == path.read_text()
