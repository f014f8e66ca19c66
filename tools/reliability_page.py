#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the counts of the reliability tests into docs/reliability.md.

make test-slow                                                # writes output/reliability.json
python tools/reliability_page.py output/reliability.json      # several files: later ones replace kinds of earlier ones
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from paddle_dnl.cli._run import run as run_program  # noqa: E402
from paddle_dnl.errors import DataError  # noqa: E402
from paddle_dnl.files.atomic import write_text  # noqa: E402

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reliability.md"
START, END = "<!-- counts: written by tools/reliability_page.py -->", "<!-- end of counts -->"


def table(reports: list[dict]) -> str:
    """The counts as a Markdown table, and what they were counted with.

    Raises:
        ValueError: there is none, or something was tried and did not hold.
    """
    counts = {kind: row for report in reports for kind, row in report["counts"].items()}
    failed = [kind for kind, row in counts.items() if row["held"] != row["tried"]]
    if failed or not counts:
        raise ValueError(f"did not hold: {', '.join(failed)}" if failed else "no counts in it")
    lines = ["| tried in the last run | number | tests |", "|---|---:|---:|"]
    lines += [f"| {kind} | {row['tried']} | {row['tests']} |" for kind, row in sorted(counts.items())]
    lines.append(f"| **all, and all held** | **{sum(row['tried'] for row in counts.values())}** | |")
    runs = dict.fromkeys(
        f"Paddle {r['run']['paddle']}, Python {r['run']['python']}, {r['run']['system']}" for r in reports
    )
    return "\n".join([*lines, "", f"Run with {'; '.join(runs)}."])


def replace_table(page: str, text: str) -> str:
    """The page with `text` between its marks.

    Raises:
        ValueError: the marks are not there.
    """
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"the page lacks the line {START if not start else END}")
    return f"{before}{START}\n\n{text}\n\n{END}{after}"


def main(argv=None) -> int:
    """Reads the reports, writes the page."""
    parser = argparse.ArgumentParser(description="Writes the counts of the reliability tests into a page.")
    parser.add_argument("reports", nargs="+", type=Path, help="JSON files of pytest's --reliability-report")
    parser.add_argument("--page", type=Path, default=PAGE)
    args = parser.parse_args(argv)
    try:
        reports = [json.loads(path.read_text(encoding="utf-8")) for path in args.reports]
        page = replace_table(args.page.read_text(encoding="utf-8"), table(reports))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{args.page}: not written: {error!r}") from error
    write_text(args.page, page, own=True)
    return 0


if __name__ == "__main__":
    run_program("reliability_page")
