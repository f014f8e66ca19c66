# SPDX-License-Identifier: Apache-2.0
"""`configs/zoo.yml`: the published results, the row of a configuration, and the tables made of them."""

from pathlib import Path

from paddle_dnl.config.lookup import zoo_folder
from paddle_dnl.errors import ConfigError

import yaml

FAMILIES = {"dnlnet": "DNLNet", "dmnet": "DMNet", "dgmn2": "DGMN2"}
_COLUMNS = (
    "Model",
    "Backbone",
    "Resolution",
    "Training Iters",
    "Params (M)",
    "GMACs",
    "mIoU",
    "mIoU (flip)",
    "mIoU (ms+flip)",
    "Source",
    "Recipe checked against",
    "Checked here",
)


def read_rows(path: str | Path) -> list[dict]:
    """The rows of zoo.yml, each with the `page` and `commit` of its source.

    Raises:
        ConfigError: a row without a needed key, or of an unknown source.
    """
    zoo = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    for i, row in enumerate(zoo["rows"]):
        for key in ("config", "family", "model", "backbone", "dataset", "size", "iters", "batch", "source", "recipe"):
            if key not in row:
                raise ConfigError(f"{path}: rows.{i}.{key}: missing")
        if row["source"] not in zoo["sources"]:
            raise ConfigError(f"{path}: rows.{i}.source: {row['source']!r} is not among sources")
        row |= zoo["sources"][row["source"]]
    return zoo["rows"]


def row_of(config) -> dict | None:
    """The published row of a configuration's file or its nearest base; None where there is none.

    Args:
        config: a `paddle_dnl.config.Config`.
    """
    rows = {Path(row["config"]).stem: row for row in read_rows(zoo_folder() / "zoo.yml") if row["recipe"] is not None}
    return next((rows[path.stem] for path in config.files if path.stem in rows), None)


def _number(value, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _table(rows: list[dict], link_from: str) -> list[str]:
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    for row in rows:
        target = row["config"]
        if link_from:
            target = target.removeprefix(link_from + "/")
        else:
            target = "../" + target
        cells = (
            f"[{Path(row['config']).stem}]({target})",
            row["backbone"],
            row["size"],
            str(row["iters"]),
            _number(row.get("params_m")),
            _number(row.get("gmacs"), 1),
            _number(row.get("miou")),
            _number(row.get("miou_flip")),
            _number(row.get("miou_ms_flip")),
            row["source"],
            "-" if row["recipe"] is None else f"[{row['commit']}]({row['page']}{row['recipe']})",
            ", ".join(row.get("checked", [])) or "builds",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


_NOTE = (
    "Numbers are what the named source published for its own training; this project has not trained on these datasets. "
    "*Checked here*: `logits`: outputs equal those of the original implementation with the same weights (tests/golden); "
    "`live`: equal to the running paddleseg model with the same weights (tests/models); `count`: the number of parameters is "
    "the published one; `builds`: the configuration resolves and builds. "
    "*Params*: trainable parameters with auxiliary heads; "
    "*GMACs*: 10^9 multiply-accumulates of one image of that resolution in evaluation, both counted here "
    "(tools/count_macs.py). *Recipe checked against*: the source's own file at that commit, see docs/recipes.md. "
    "Made by `python tools/model_zoo.py`."
)


def family_page(rows: list[dict], family: str) -> str:
    """README.md of one folder of configurations."""
    mine = [row for row in rows if row["family"] == family]
    lines = [f"# {FAMILIES[family]}", ""]
    for dataset in dict.fromkeys(row["dataset"] for row in mine):
        lines += [f"## {dataset}", ""]
        lines += _table([row for row in mine if row["dataset"] == dataset], f"configs/{family}") + [""]
    return "\n".join([*lines, _NOTE, ""])


def zoo_page(rows: list[dict]) -> str:
    """docs/model_zoo.md."""
    lines = ["# Model zoo", "", _NOTE, ""]
    for family, title in FAMILIES.items():
        lines += [f"## {title}", ""]
        mine = [row for row in rows if row["family"] == family]
        for dataset in dict.fromkeys(row["dataset"] for row in mine):
            lines += [f"### {title} on {dataset}", ""]
            lines += _table([row for row in mine if row["dataset"] == dataset], "") + [""]
    return "\n".join(lines)


_SUMMARY_HEADS = {
    "README.md": ("model", "dataset", "configurations", "best published mIoU", "with scales and flip", "from"),
    "README_CN.md": ("模型", "数据集", "配置数", "已发表的最高 mIoU", "多尺度与翻转", "出处"),
}
_BEGIN, _END = "<!-- zoo -->", "<!-- end of zoo -->"


def _best(rows: list[dict], key: str) -> str:
    return _number(max((row[key] for row in rows if row.get(key) is not None), default=None))


def summary(rows: list[dict], heads: tuple[str, ...]) -> str:
    """One line for each model and data set."""
    lines = ["| " + " | ".join(heads) + " |", "|---|---|---:|---:|---:|---|"]
    for model, dataset in dict.fromkeys((row["model"], row["dataset"]) for row in rows):
        mine = [row for row in rows if (row["model"], row["dataset"]) == (model, dataset)]
        sources = ", ".join(dict.fromkeys(row["source"] for row in mine))
        best = _best(mine, "miou"), _best(mine, "miou_ms_flip")
        lines.append("| " + " | ".join((model, dataset, str(len(mine)), *best, sources)) + " |")
    return "\n".join(lines)


def with_summary(text: str, table: str) -> str:
    """A README with the table between its two marks.

    Raises:
        ValueError: a mark is missing.
    """
    begin, end = text.index(_BEGIN) + len(_BEGIN), text.index(_END)
    return f"{text[:begin]}\n\n{table}\n\n{text[end:]}"


def pages(root: str | Path) -> dict[Path, str]:
    """Every page that is made from zoo.yml, by its path."""
    root = Path(root)
    rows = read_rows(root / "configs" / "zoo.yml")
    found = {root / "configs" / family / "README.md": family_page(rows, family) for family in FAMILIES}
    for name, heads in _SUMMARY_HEADS.items():
        found[root / name] = with_summary((root / name).read_text(encoding="utf-8"), summary(rows, heads))
    return found | {root / "docs" / "model_zoo.md": zoo_page(rows)}
