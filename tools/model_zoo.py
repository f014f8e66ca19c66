# SPDX-License-Identifier: Apache-2.0
"""Writes docs/model_zoo.md, the README of each folder of configurations and the table in both READMEs from configs/zoo.yml.

With --facts it first renews the digest of each published row's resolved configuration in zoo.yml itself: do so after a
deliberate change of a recipe, whose facts tests/recipes compare with the source.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from paddle_dnl.cli._run import run  # noqa: E402
from paddle_dnl.config import Config  # noqa: E402
from paddle_dnl.config.zoo import pages, read_rows  # noqa: E402
from paddle_dnl.files.atomic import write_text  # noqa: E402
from paddle_dnl.training.records.published import facts_digest  # noqa: E402


def with_digests(zoo: Path) -> str:
    """The text of zoo.yml with the digest of today's facts after each row's `recipe`."""
    text = re.sub(r"^  facts: .*\n", "", zoo.read_text(encoding="utf-8"), flags=re.M)
    for row in read_rows(zoo):
        if row["recipe"] is not None:
            digest = facts_digest(Config(ROOT / row["config"]).dic)
            of_row = re.compile(rf"^- config: {re.escape(row['config'])}\n(?:  .*\n)*?  recipe: .*\n", re.M)
            text = of_row.sub(lambda found, digest=digest: f"{found[0]}  facts: {digest!r}\n", text)
    return text


def main(argv=None) -> int:
    """Writes the pages; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", action="store_true", help="renew the digests in configs/zoo.yml too")
    if parser.parse_args(argv).facts:
        write_text(ROOT / "configs/zoo.yml", with_digests(ROOT / "configs/zoo.yml"), own=True)
    for path, text in pages(ROOT).items():
        write_text(path, text, own=True)
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    run("model_zoo")
