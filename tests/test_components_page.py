# SPDX-License-Identifier: Apache-2.0
"""docs/components.md is current, describes every key, and its complete file is a configuration."""

import importlib.util
import re
from pathlib import Path

import paddle_dnl  # noqa: F401
from paddle_dnl.config import Config

import paddle
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("components_page", ROOT / "tools" / "components_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _own(text: str) -> str:
    """Without what the installed Paddle says of its own optimizers and schedules."""
    return "\n".join(line for line in text.split("## Optimizers")[0].splitlines())


def test_the_page_is_current(tool):
    made, kept = tool.make_page(), tool.PAGE.read_text(encoding="utf-8")
    assert _own(made) == _own(kept), "run python tools/components_page.py"
    written_with = re.search(r"Those of Paddle (\S+),", kept)[1]
    if paddle.__version__ == written_with:
        assert made == kept, "run python tools/components_page.py"


def test_every_key_is_described(tool):
    text = tool.PAGE.read_text(encoding="utf-8")
    for kind in ("dataset", "transform", "model", "backbone", "loss"):
        components = tool.own_components(kind)
        assert components
        for name, component in components.items():
            assert f"### {name}\n" in text
            bare = [key for key, (_, meaning) in tool.keys_of(component).items() if not meaning]
            assert not bare, f"{name}: the docstring describes no {', '.join(bare)}"


def test_the_complete_file_is_a_configuration(tool, tmp_path):
    path = tmp_path / "complete.yml"
    path.write_text(tool.EXAMPLE)
    config = Config(str(path))
    assert config.model_cfg["num_classes"] == 3 and config.dic["loss"]["types"][1]["ignore_index"] == 255
