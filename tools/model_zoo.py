# SPDX-License-Identifier: Apache-2.0
"""Writes docs/model_zoo.md, the README of each folder of configurations and the table in both READMEs from configs/zoo.yml."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from paddle_dnl.config.zoo import pages  # noqa: E402

if __name__ == "__main__":
    for path, text in pages(ROOT).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))
