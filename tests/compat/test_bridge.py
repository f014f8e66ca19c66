# SPDX-License-Identifier: Apache-2.0
"""The bridge to PaddleSeg: asked only for names that are not ours; clear words where it is missing or broken."""

import subprocess
import sys
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.compat import paddleseg as bridge
from paddle_dnl.errors import ConfigError

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What PaddleSeg and VisualDL bring along.
HEAVY = ("paddleseg", "scipy", "sklearn", "pandas", "flask", "visualdl", "matplotlib", "prettytable")


def _run(program: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)


def test_our_configurations_need_neither_paddleseg_nor_what_it_brings():
    """All of them are read, checked and their transforms and losses built; one model, optimizer and schedule of each family."""
    program = f"""
import sys
from pathlib import Path
for name in {HEAVY}:
    sys.modules[name] = None  # its import fails
from paddle_dnl import registry
from paddle_dnl.config import Config
from paddle_dnl.losses import build_losses
paths = sorted(Path({str(ROOT)!r}, "configs").glob("d*/*.yml"))
assert len(paths) > 20
for path in paths:
    config = Config(path)
    for section in (config.train_dataset_cfg, config.val_dataset_cfg):
        for step in section["transforms"]:
            registry.build(step, "transform")
    build_losses(config.loss_cfg)
import paddle_dnl.models, paddle_dnl.data.datasets, paddle_dnl.training.trainer, paddle_dnl.deployment.export.exporter
import paddle_dnl.startup.environment as environment
assert environment.describe()["PaddleSeg"] == "not installed"
print("fine")
"""
    done = _run(program)
    assert done.stdout.strip().endswith("fine"), done.stderr[-2000:]


@pytest.mark.parametrize("kind, name", [("model", "PPLiteSeg"), ("backbone", "STDC1"), ("transform", "RandomBlur")])
def test_without_paddleseg_the_error_says_what_to_install(monkeypatch, kind, name):
    monkeypatch.setattr(bridge, "is_installed", lambda: False)
    with pytest.raises(ConfigError, match=r"there is no .* named .*pip install 'paddleseg>=2.8' 'numpy<2'") as caught:
        registry.find(name, kind, "x")
    assert "\n" not in str(caught.value)
    assert registry.find("Normalize", "transform", "x").__module__.startswith("paddle_dnl.")
    with pytest.raises(ConfigError, match="pip install 'paddleseg"):
        bridge.manager(kind)


@pytest.mark.paddleseg
def test_names_that_are_not_ours_come_from_paddleseg():
    for kind, name in (
        ("model", "PPLiteSeg"),
        ("backbone", "STDC1"),
        ("transform", "RandomBlur"),
        ("loss", "DiceLoss"),
    ):
        assert registry.find(name, kind, "x").__module__.startswith("paddleseg."), name
    with pytest.raises(ConfigError, match="Did you mean 'PPLiteSeg'") as caught:
        registry.find("PPLiteSegg", "model", "x")
    assert "pip install" not in str(caught.value)


def test_a_broken_paddleseg_is_one_line(tmp_path):
    """Such as 2.8.0 with an OpenCV built for another NumPy."""
    (tmp_path / "paddleseg").mkdir()
    (tmp_path / "paddleseg" / "__init__.py").write_text("raise AttributeError('_ARRAY_API not\\nfound')\n")
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from paddle_dnl import registry
registry.find("Normalize", "transform", "x")
try:
    registry.find("RandomBlur", "transform", "x")
except Exception as error:
    print(type(error).__name__, error)
"""
    (line,) = _run(program).stdout.strip().splitlines()
    assert line.startswith("ConfigError the installed PaddleSeg (")
    assert "cannot be imported (AttributeError: _ARRAY_API not found)" in line and "pip install" in line


def test_registering(monkeypatch):
    """PaddleSeg's interface: a decorator or a call, classes and functions, one or several."""
    found = registry.ComponentManager("things")

    @found.add_component
    class One:
        pass

    def two():
        pass

    assert found.add_component([two]) == [two] and found["One"] is One and found.components_dict["two"] is two
    assert len(found) == 2 and "One" in found and "Three" not in found and "things" in repr(found)

    replacement = type("One", (), {})
    found.add_component(replacement)
    assert found["One"] is replacement
    with pytest.raises(TypeError, match="a class or a function"):
        found.add_component(3)


def test_loading_one_kind_loads_no_other():
    """Transforms, which an exported model needs, come without Paddle."""
    done = _run(
        "import sys; from paddle_dnl import registry; registry.find('Normalize', 'transform', 'x')\n"
        "assert not {'paddle', 'paddleseg', 'paddle_dnl.models'} & set(sys.modules); print('fine')"
    )
    assert done.stdout.strip().endswith("fine"), done.stderr[-2000:]
