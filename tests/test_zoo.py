"""Pages made from zoo.yml are those that are stored."""

from pathlib import Path

from paddle_dnl.zoo import pages

ROOT = Path(__file__).resolve().parent.parent


def test_stored_pages_are_up_to_date():
    for path, text in pages(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run `python tools/model_zoo.py`"


def test_every_row_links_to_a_file():
    import re

    for path, text in pages(ROOT).items():
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert (path.parent / target).is_file(), f"{path}: {target}"
