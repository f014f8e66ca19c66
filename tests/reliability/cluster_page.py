# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/many_machines.md, for tests that run them."""

import re
import shlex
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "many_machines.md"


def commands(heading: str) -> list[list[str]]:
    """Words of the `paddle-dnl launch` commands below a heading of the page."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = "".join(re.findall(r"```bash\n(.*?)```", section, re.S))
    return [shlex.split(line) for line in blocks.splitlines() if line.startswith("paddle-dnl launch")]


def with_values(words: list[str], values: dict) -> list[str]:
    """The words with other values of some flags."""
    return [words[0], *(str(values.get(flag, word)) for flag, word in zip(words, words[1:], strict=False))]
