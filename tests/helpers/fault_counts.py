# SPDX-License-Identifier: Apache-2.0
"""Counts what the reliability tests tried, over all processes of a run, for the terminal and for docs/reliability.md.

A test says what it tried: `count_fault("hostile pickles", 25)`. The numbers travel with the test's report, so that they
arrive from the workers of a parallel run too. `held` counts the tries of passed tests.
"""

import json
import platform
from pathlib import Path

import pytest

_PROPERTY = "tried"


def pytest_addoption(parser):
    parser.addoption("--reliability-report", metavar="PATH", help="write the counts of the reliability tests as JSON")


@pytest.fixture
def count_fault(request):
    """`count_fault(kind, n=1)` adds `n` tries of a kind, a plural noun such as `truncated files`, to the counts of this run."""

    def count(kind: str, n: int = 1) -> None:
        request.node.user_properties.append((_PROPERTY, [kind, n]))

    return count


def _counts(reports) -> dict[str, dict[str, int]]:
    """Kind to tests, tries and tries of passed tests, kinds in alphabetical order."""
    found: dict[str, dict[str, int]] = {}
    for report in reports:
        given: dict[str, int] = {}
        for name, value in report.user_properties:
            if name == _PROPERTY:
                given[value[0]] = given.get(value[0], 0) + value[1]
        for kind, n in given.items():
            row = found.setdefault(kind, {"tests": 0, "tried": 0, "held": 0})
            row["tests"] += 1
            row["tried"] += n
            row["held"] += n * report.passed
    return dict(sorted(found.items()))


def pytest_terminal_summary(terminalreporter, config):
    calls = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call"
    ]
    counts = _counts(calls)
    if counts:
        terminalreporter.section("reliability: tried, held")
        for kind, row in counts.items():
            terminalreporter.line(f"{kind:<44} {row['tried']:>6} {row['held']:>6}   ({row['tests']} tests)")
    path = config.getoption("--reliability-report")
    if path:
        import paddle

        run = {"python": platform.python_version(), "paddle": paddle.__version__, "system": platform.system()}
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps({"run": run, "counts": counts}, indent=2) + "\n", encoding="utf-8")
