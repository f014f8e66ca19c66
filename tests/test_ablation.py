# SPDX-License-Identifier: Apache-2.0
"""The experiment's bookkeeping: tables from results, the page they go into, and what an interrupted run does."""

import importlib.util
import json
from pathlib import Path

from paddle_dnl.errors import DataError, UsageError

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def ablation():
    spec = importlib.util.spec_from_file_location("ablation", ROOT / "tools" / "ablation.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _result(variant, seed, miou, category=None):
    result = {"variant": variant, "seed": seed, "miou": miou, "acc": 0.5}
    if category is not None:
        value = {"mean": category, "standard_error": 0.1, "images": 2}
        measures = {"pairwise_category": value, "random_category": {**value, "mean": 0.25}}
        result["statistics"] = {"measures": measures}
    return result


RESULTS = [
    _result("baseline", 0, 0.30),
    _result("baseline", 1, 0.32),
    _result("dnl", 0, 0.36, 0.7),
    _result("dnl", 1, 0.34, 0.5),
    _result("nonlocal", 0, 0.29, 0.3),
]


def test_scores_by_hand(ablation):
    rows = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in
            ablation.score_table(RESULTS).splitlines()}  # fmt: skip
    assert rows["no block"] == ["0.3000", "0.3200", "0.310 ± 0.014", "-"]
    assert rows["DNL"] == ["0.3600", "0.3400", "0.350 ± 0.014", "0.040 ± 0.028"]
    assert rows["NL"] == ["0.2900", "-", "0.290", "-0.010"]
    assert rows["unary only"] == ["-", "-", "-", "-"]


def test_statistics_by_hand(ablation):
    lines = ablation.statistics_table(RESULTS).splitlines()
    assert lines[2].startswith("| even attention (random) | 0.250 | - |")
    assert lines[3].startswith("| NL | 0.300 | - |") and lines[4].startswith("| DNL | 0.600 ± 0.141 | - |")
    assert len(lines) == 5
    assert "No attention statistics" in ablation.statistics_table(RESULTS[:2])


def test_only_the_tables_of_the_page_change(ablation, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- scores -->\nold\n<!-- end of scores -->\nb\n<!-- statistics -->\n<!-- end of statistics -->\nc\n"
    )
    for _ in range(2):
        ablation.write_report(RESULTS, page)
    text = page.read_text()
    assert "old" not in text and text.startswith("a\n") and "\nb\n" in text and text.endswith("\nc\n")
    assert text.count("| DNL |") == 2 and json.loads((tmp_path / "page.json").read_text()) == RESULTS
    page.write_text("no marks")
    with pytest.raises(UsageError, match="scores"):
        ablation.write_report(RESULTS, page)


def test_finished_steps_are_passed_over_and_other_configurations_refused(ablation, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(
        ablation, "run", lambda command: ran.append(command) or "[EVAL] #Images: 3 mIoU: 0.25 Acc: 0.5 "
    )
    one = ablation.Run("dnl", 3, tmp_path)
    assert one.iters == 200
    (one.folder / "iter_200").mkdir(parents=True)
    for name in ("model.pdparams", "model.pdopt"):
        (one.folder / "iter_200" / name).write_text(name)
    one.train()
    assert one.weights.read_text() == "model.pdparams" and not (one.folder / "iter_200").exists()
    one.evaluate()
    again = ablation.Run("dnl", 3, tmp_path)
    again.train()
    again.evaluate()
    assert [command.split()[1] for command in ran] == ["train.py", "val.py"] and "--seed 3" in ran[0]
    assert again.result["miou"] == 0.25 and again.result["iters"] == 200
    changed = json.loads(one.result_path.read_text())
    one.result_path.write_text(json.dumps({**changed, "config": "other"}))
    with pytest.raises(UsageError, match="another configs/ablation/dnl.yml"):
        ablation.Run("dnl", 3, tmp_path)
    for odd in ("", "[]", '{"miou": 1}', "{"):
        one.result_path.write_text(odd)
        with pytest.raises(DataError, match="result.json"):
            ablation.Run("dnl", 3, tmp_path)


def test_the_page_in_the_documentation_has_the_marks(ablation):
    text = (ROOT / "docs" / "ablation.md").read_text()
    for name in ("scores", "statistics"):
        assert text.count(f"<!-- {name} -->\n") == 1 and text.count(f"<!-- end of {name} -->") == 1


def test_every_variant_differs_from_every_other_only_in_its_block(ablation):
    from paddle_dnl.config import Config

    configs = {variant: Config(ROOT / f"configs/ablation/{variant}.yml").dic for variant in ablation.VARIANTS}
    switches = ("pairwise", "unary", "whitening", "temperature", "unary_key", "combine")
    blocks = [tuple(config["model"].pop(name, None) for name in switches) for config in configs.values()]
    assert len(set(blocks)) == len(blocks)
    assert all(config == configs["dnl"] for config in configs.values())
