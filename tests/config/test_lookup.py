# SPDX-License-Identifier: Apache-2.0
"""Configurations by path and by name, from any folder; the nearest of a wrong one; listed, shown and copied."""

import subprocess
import sys
from pathlib import Path

from paddle_dnl import build_model
from paddle_dnl.cli.configs import main as configs
from paddle_dnl.config import Config
from paddle_dnl.config.lookup import find_config, zoo_configs, zoo_folder
from paddle_dnl.config.reading import read_config
from paddle_dnl.config.zoo import read_rows
from paddle_dnl.errors import ConfigError, UsageError

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
NAME = "dnlnet_resnet50_os8_cityscapes_1024x512_80k"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test works in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_name_is_one_file():
    files = [path for path in (ROOT / "configs").rglob("*.yml") if path.parent.name not in ("configs", "_base_")]
    assert sorted(zoo_configs().values()) == sorted(files), "two configurations have one name"
    rows = {Path(row["config"]).stem: ROOT / row["config"] for row in read_rows(zoo_folder() / "zoo.yml")}
    assert len(rows) > 50 and all(zoo_configs()[name] == path for name, path in rows.items())


@pytest.mark.parametrize(
    "given", [NAME, f"{NAME}.yml", f"configs/{NAME}.yml", f"configs/wrong/{NAME}.yaml", Path(NAME)]
)
def test_a_name_with_any_folder(given):
    assert find_config(given) == ROOT / "configs" / "dnlnet" / f"{NAME}.yml"
    assert Config(given).path == str(ROOT / "configs" / "dnlnet" / f"{NAME}.yml")


def test_what_deepspark_and_dmnet_paddle_type():
    """Their path is not where this project has the file."""
    path = find_config("configs/dmnet_cityscapes_1024x512_80k.yml")
    assert path == ROOT / "configs" / "dmnet" / "dmnet_cityscapes_1024x512_80k.yml"


def test_a_file_of_that_name_goes_first(elsewhere):
    (elsewhere / f"{NAME}.yml").write_text(f"_base_: {NAME}.yml\n")
    assert find_config(f"{NAME}.yml") == Path(f"{NAME}.yml")
    with pytest.raises(ConfigError, match="leads in a circle"):
        read_config(f"{NAME}.yml")


def test_a_base_by_name_and_a_model_by_name(elsewhere):
    (elsewhere / "mine.yml").write_text("_base_: dnlnet_resnet18_mini_cityscapes\niters: 7\n")
    assert Config("mine.yml").iters == 7 and Config("mine.yml").model_cfg["backbone"]["type"] == "ResNet18"
    (elsewhere / "other.yml").write_text("_base_: ../_base_/cityscapes.yml\n")
    with pytest.raises(ConfigError, match="other.yml: _base_: .*cityscapes.yml does not exist"):
        Config("other.yml")
    assert type(build_model("dnlnet_resnet18_mini_cityscapes")).__name__ == "DNLNet"


def test_the_nearest_of_both(elsewhere):
    (elsewhere / "runs").mkdir()
    (elsewhere / "runs" / "my_experiment.yml").write_text("iters: 1\n")
    for given, nearest in (
        ("runs/my_experment.yml", "runs/my_experiment.yml"), (NAME.replace("50_os8", "50-os8"), NAME),
        (f"nowhere/{NAME}s.yml", NAME),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"no such configuration file. Did you mean '{nearest}'"):
            find_config(given)
    with pytest.raises(ConfigError, match="zzzz: no such configuration file. `paddle-dnl configs`"):
        find_config("zzzz")


def test_listing(capsys):
    configs(["--dataset", "ade20k", "--model", "dmnet"])
    lines = capsys.readouterr().out.splitlines()
    rows = [row for row in read_rows(zoo_folder() / "zoo.yml") if (row["dataset"], row["model"]) == ("ADE20K", "DMNet")]
    assert [line.split()[0] for line in lines[1:]] == [Path(row["config"]).stem for row in rows]
    best = next(line for line in lines if line.startswith("dmnet_r101-d8_512x512_160k_ade20k"))
    assert "45.42" in best and "46.76" in best and best.endswith("mmsegmentation")
    with pytest.raises(UsageError, match="--dataset kitti: there is none; choose one of ADE20K"):
        configs(["--dataset", "kitti"])


def test_a_copy_is_whole_and_the_same(capsys, elsewhere):
    configs(["copy", NAME, "mine/new"])
    copied = Path(capsys.readouterr().out.strip())
    assert copied == Path("mine/new") / f"{NAME}.yml"
    assert read_config(copied) == read_config(NAME) and "_base_" not in copied.read_text()
    assert Config(copied).dump() == Config(NAME).dump()
    with pytest.raises(UsageError, match="exists; remove it"):
        configs(["copy", NAME, "mine/new"])
    configs(["show", NAME])
    shown = capsys.readouterr().out
    assert yaml.safe_load(shown)["iters"] == 80000 and "mIoU 79.95, published by PaddleSeg" in shown


def test_a_launched_command(elsewhere):
    """The launcher runs what does not end in .py as a program: the installed command is one."""
    command = elsewhere / "paddle-dnl"
    command.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
                       "from paddle_dnl.cli.main import main\nmain()\n")  # fmt: skip
    command.chmod(0o755)
    words = [
        sys.executable,
        "-m",
        "paddle.distributed.launch",
        "--nproc_per_node",
        "1",
        "--backend",
        "gloo",
        "--log_dir",
        "log",
    ]
    done = subprocess.run([*words, str(command), "configs", "show", NAME], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "PolynomialDecay" in "".join(path.read_text() for path in Path("log").glob("workerlog*"))
