# SPDX-License-Identifier: Apache-2.0
"""Pages made from zoo.yml are those that are stored."""

from pathlib import Path

from paddle_dnl.config.zoo import pages, read_rows

ROOT = Path(__file__).resolve().parents[2]


def test_stored_pages_are_up_to_date():
    for path, text in pages(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run `python tools/model_zoo.py`"


def test_every_configuration_says_how_it_is_run_and_what_was_published():
    """Command, result and source in the head comment, the same numbers as in zoo.yml; a row for every configuration."""
    rows = read_rows(ROOT / "configs" / "zoo.yml")
    folders = [ROOT / "configs" / family for family in ("dnlnet", "dmnet", "dgmn2")]
    found = {str(path.relative_to(ROOT)) for folder in folders for path in folder.rglob("*.yml")}
    assert found == {row["config"] for row in rows}
    sources = {
        "mmsegmentation": "mmsegmentation", "PaddleSeg": "PaddleSeg", "DMNet_paddle": "justld/DMNet_paddle",
        "DNL authors": "yinmh17/DNL-Semantic-Segmentation", "DGMN2 authors": "fudan-zvg/DGMN2",
    }  # fmt: skip
    for row in rows:
        text = (ROOT / row["config"]).read_text(encoding="utf-8")
        head = text[: text.index("\n_base_:")]
        assert f"train.py --config {row['config']} " in head, row["config"]
        assert sources[row["source"]] in head, row["config"]
        for key in ("miou", "miou_flip", "miou_ms_flip"):
            if row.get(key) is not None:
                assert f"{row[key]:.2f}" in head or f"{row[key]} " in head, (row["config"], key)
                flag = {"miou": "", "miou_flip": "--flip_horizontal", "miou_ms_flip": "--scales"}[key]
                # The authors' two rows with scales have them in test_config.
                assert flag in head or "aug_eval: True" in text, (row["config"], flag)


def test_every_row_links_to_a_file():
    import re

    for path, text in pages(ROOT).items():
        for target in re.findall(r"\]\((?!https:)([^)]+)\)", text):
            assert (path.parent / target).is_file(), f"{path}: {target}"
