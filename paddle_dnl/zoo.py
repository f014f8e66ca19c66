"""The tables of published results, made from `configs/zoo.yml`."""

from pathlib import Path

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
    "Checked here",
)


def read_rows(path: str | Path) -> list[dict]:
    """The rows of zoo.yml.

    Raises:
        ConfigError: a row without a needed key.
    """
    rows = yaml.safe_load(Path(path).read_text(encoding="utf-8"))["rows"]
    for i, row in enumerate(rows):
        for key in ("config", "family", "model", "backbone", "dataset", "size", "iters", "source"):
            if key not in row:
                raise ConfigError(f"{path}: rows.{i}.{key}: missing")
    return rows


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
    "(tools/count_macs.py). Made by `python tools/model_zoo.py`."
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


def pages(root: str | Path) -> dict[Path, str]:
    """Every page that is made from zoo.yml, by its path."""
    root = Path(root)
    rows = read_rows(root / "configs" / "zoo.yml")
    found = {root / "configs" / family / "README.md": family_page(rows, family) for family in FAMILIES}
    return found | {root / "docs" / "model_zoo.md": zoo_page(rows)}
