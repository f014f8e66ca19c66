# SPDX-License-Identifier: Apache-2.0
"""Every configuration resolves, is checked, and builds the model that its source published."""

from pathlib import Path

from paddle_dnl import build_model
from paddle_dnl.config import Config

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(p for p in (ROOT / "configs").rglob("*.yml") if p.parent.name != "_base_" and p.name != "zoo.yml")
ROWS = yaml.safe_load((ROOT / "configs/zoo.yml").read_text())["rows"]

DGMN2 = {
    "fpn": (15_838_211, 24_705_107, 39_548_459, 52_023_509),
    "setr_naive": (11_598_211, 20_465_107, 35_308_459, 47_783_509),
    "setr_pup": (13_954_947, 22_821_843, 37_665_195, 50_140_245),
    "setr_mla": (13_369_731, 22_236_627, 37_079_979, 49_555_029),
}
SIZES = ("tiny", "small", "medium", "large")


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _published_counts() -> dict[str, int]:
    """Trainable parameters by configuration, from the original implementations (19 classes)."""
    counts = {
        f"configs/dgmn2/{head}_dgmn2_{size}_cityscapes_769x769_40k.yml": count
        for head, row in DGMN2.items()
        for size, count in zip(SIZES, row, strict=True)
    }
    for model, by_depth in (
        ("dnl", {"r50": 50_024_327, "r101": 69_016_455}),
        ("dmnet", {"r50": 53_175_942, "r101": 72_168_070}),
    ):
        folder = {"dnl": "dnlnet", "dmnet": "dmnet"}[model]
        for depth, count in by_depth.items():
            for recipe in ("512x1024_40k", "512x1024_80k", "769x769_40k", "769x769_80k"):
                counts[f"configs/{folder}/mmseg/{model}_{depth}-d8_{recipe}_cityscapes.yml"] = count
    for depth, count in (("50", 50_024_327), ("101", 69_016_455)):
        counts[f"configs/dnlnet/dnlnet_resnet{depth}_os8_cityscapes_1024x512_80k.yml"] = count
    counts["configs/dmnet/dmnet_resnet101_os8_cityscapes_1024x512_80k.yml"] = 74_535_814
    for iters in ("80k", "100k"):
        counts[f"configs/dmnet/dmnet_cityscapes_1024x512_{iters}.yml"] = 74_535_814
    return counts


COUNTS = _published_counts()


@pytest.mark.parametrize("path", CONFIGS, ids=_name)
def test_resolves(path):
    config = Config(path)
    assert config.model_cfg["num_classes"] > 1
    head = path.read_text().split("\n")
    assert head[0].startswith("# "), "says what it is"
    assert f"--config {_name(path)}" in path.read_text(), "holds the command"


def _count(path) -> int:
    model = build_model(str(path))
    return sum(int(np.prod(p.shape)) for p in model.parameters() if not p.stop_gradient)


FAST = [n for n in COUNTS if "tiny" in n or "r50-d8_512x1024_40k" in n or "dnlnet_resnet50" in n]


@pytest.mark.parametrize("name", FAST)
def test_published_parameter_count(name):
    assert _count(ROOT / name) == COUNTS[name]


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=_name)
def test_builds_with_the_published_count(path):
    count = _count(path)
    assert count == COUNTS.get(_name(path), count) and count > 1_000_000


def test_every_row_of_the_zoo_has_its_configuration_and_every_configuration_its_row():
    named = {row["config"] for row in ROWS}
    assert len(named) == len(ROWS)
    present = {_name(p) for p in CONFIGS if not {"quickstart", "ablation"} & set(p.parts)}
    assert named == present
    assert len([r for r in ROWS if r["family"] == "dgmn2"]) == 16
    assert len([r for r in ROWS if r["source"] == "mmsegmentation"]) == 24


def test_numbers_in_a_configuration_are_those_of_its_row():
    for row in ROWS:
        text = (ROOT / row["config"]).read_text()
        for key in ("miou", "miou_ms_flip"):
            if row.get(key) is not None:
                assert f"{row[key]:.2f}" in text or f"{row[key]:g}" in text, row["config"]
