# SPDX-License-Identifier: Apache-2.0
"""Every published row, as resolved, against the facts in its source's own file.

The tables (one JSON per source, a row per file, with the commit) were read from the sources' configurations; that of
OpenMMLab is read again from the installed package by `make parity` (tests/reference/mmseg_facts.py).
"""

import json
import re
from pathlib import Path

from paddle_dnl.config import Config
from paddle_dnl.config.zoo import read_rows

import pytest
from recipe_facts import facts_of, network_facts

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TABLES = {table["source"]: table for table in (json.loads(path.read_text()) for path in sorted(HERE.glob("*.json")))}
ROWS = [row for row in read_rows(ROOT / "configs/zoo.yml") if row["recipe"] is not None]
# Facts that stand elsewhere than in the resolved configuration: in the command of its head, and in the network.
_ELSEWHERE = {"validation_interval", "gpus", "network"}
# Ours names a released script's whitening by what its block does with an option that it does not know.
_OF_THE_BLOCK = {
    "dnl_nowd_in_released_resnet101_cityscapes_769x769_60k": {"whitening": "none"},
    "dnl_nowd_in_resnet101_cityscapes_769x769_60k": {"whitening": "spatial"},
}


def _stem(row) -> str:
    return Path(row["config"]).stem


@pytest.mark.parametrize("row", ROWS, ids=_stem)
def test_the_resolved_recipe_has_the_facts_of_its_source(row):
    facts = TABLES[row["source"]]["rows"][row["recipe"]] | _OF_THE_BLOCK.get(_stem(row), {})
    expected = {key: value for key, value in facts.items() if key not in _ELSEWHERE}
    found = facts_of(Config(ROOT / row["config"]))
    found["evaluation"].setdefault("align_corners", False)
    if row["source"] != "DNL authors":
        for key in ("temperature", "use_scale", "whitening"):
            assert key not in found, "the defaults are the source's"
    else:  # 8-bit padding to the crop size is the crop's own there
        found["train"].pop("padded_to", None)
    assert found == expected
    if row["source"] in ("mmsegmentation", "DGMN2 authors"):  # SegTTAModel, and mmsegmentation 0.16's aug_test
        assert Config(ROOT / row["config"]).test_config["average"] == "softmax"


@pytest.mark.parametrize("row", ROWS, ids=_stem)
def test_the_network_has_the_facts_of_its_source(row):
    """As it is built: blocks of each stage, first convolutions, dilations, dropout before each classifier, resizing."""
    assert network_facts(Config(ROOT / row["config"])) == TABLES[row["source"]]["rows"][row["recipe"]]["network"]


@pytest.mark.parametrize("row", ROWS, ids=_stem)
def test_the_head_holds_the_sources_gpus_batch_and_validation_interval(row):
    facts = TABLES[row["source"]]["rows"][row["recipe"]]
    command = re.search(r"^#   python .* train.py .*$", (ROOT / row["config"]).read_text(encoding="utf-8"), re.M)[0]
    gpus = len(re.search(r"--devices (\S+)", command)[1].split(","))
    assert gpus == facts.get("gpus", 4) and gpus * facts["batch_per_gpu"] == row["batch"]
    interval = re.search(r"--save_interval (\d+)", command)
    if "validation_interval" in facts:
        assert interval is not None and int(interval[1]) == facts["validation_interval"]
    if not Config(ROOT / row["config"]).model_cfg["backbone"].get("pretrained"):
        assert f"--pretrained {facts['start_weights']}" in command


def test_tables_are_those_of_the_commits_in_the_zoo():
    for row in ROWS:
        assert TABLES[row["source"]]["commit"] == row["commit"]
    named = {(row["source"], row["recipe"]) for row in ROWS}
    assert named == {(source, recipe) for source, table in TABLES.items() for recipe in table["rows"]}
