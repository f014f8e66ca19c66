# SPDX-License-Identifier: Apache-2.0
"""Components of users: imported when the command line says so, in every program and rank; a file alone runs no code."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

from paddle_dnl import registry
from paddle_dnl.cli.programs import PROGRAMS
from paddle_dnl.config import Config
from paddle_dnl.data.prepare.convert_cityscapes import convert_tree
from paddle_dnl.data.scenes.mini_cityscapes import generate
from paddle_dnl.errors import ConfigError

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MODULE = """
from pathlib import Path
from paddle_dnl.registry import MODELS
from paddle import nn
import {neighbour}

Path(__file__).with_suffix(".ran").write_text("")

@MODELS.add_component
class {name}(nn.Layer):
    def __init__(self, num_classes):
        super().__init__()
        self.cls = nn.Conv2D(3, num_classes, 1)

    def forward(self, x):
        return [self.cls(x)]
"""
CONFIG = """
_base_: dnlnet_resnet18_mini_cityscapes
custom_imports: [{module}]
batch_size: 1
train_dataset: {{dataset_root: {data}, transforms: [{{type: RandomPaddingCrop, crop_size: [64, 64]}}, {{type: Normalize}}]}}
val_dataset: {{dataset_root: {data}}}
loss: {{coef: [1]}}
model: {{_inherited_: False, type: {name}}}
"""


def write(folder: Path, stem: str, data: str = "data") -> Path:
    """A configuration with a model of its own, whose file imports another one beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}_parts.py").write_text("")
    (folder / f"{stem}.py").write_text(MODULE.format(name=f"Net_{stem}", neighbour=f"{stem}_parts"))
    path = folder / f"{stem}.yml"
    path.write_text(CONFIG.format(module=f"{stem}.py", name=f"Net_{stem}", data=data))
    return path


def test_a_file_alone_runs_no_code(tmp_path):
    path = write(tmp_path, "stranger")
    with pytest.raises(ConfigError, match=r"stranger.yml: custom_imports: .*stranger.py is code.*--trust_config"):
        Config(path)
    assert not (tmp_path / "stranger.ran").exists()
    # Neither by --opts, nor for what another name allows.
    with pytest.raises(ConfigError, match="stranger.py is code"):
        Config(path, custom_imports=["stranger_parts.py"])
    assert not (tmp_path / "stranger.ran").exists()


def test_named_on_the_command_line(tmp_path):
    """Beside the configuration, with its neighbours; recorded by its absolute path; accepted without a name afterwards."""
    path = write(tmp_path / "run", "named")
    config = Config(path, custom_imports=["named.py"])
    assert (tmp_path / "run" / "named.ran").exists()
    assert config.dic["custom_imports"] == [str(tmp_path / "run" / "named.py")]
    assert registry.build(config.model_cfg, "model").cls.weight.shape == [19, 3, 1, 1]
    assert yaml.safe_load(config.dump())["custom_imports"] == config.dic["custom_imports"]
    assert Config(path).model_cfg["type"] == "Net_named"


def test_trusted_and_relative_to_the_file_that_names_it(tmp_path):
    write(tmp_path / "base", "trusted")
    child = tmp_path / "elsewhere" / "child.yml"
    child.parent.mkdir()
    child.write_text("_base_: ../base/trusted.yml\niters: 3\n")
    config = Config(child, trust_config=True)
    assert config.dic["custom_imports"] == [str(tmp_path / "base" / "trusted.py")]


def test_modules_and_packages(tmp_path):
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    path = write(tmp_path, "unused")
    write(package, "inner")
    (package / "inner.py").write_text((package / "inner.py").read_text().replace("import inner_parts", ""))
    path.write_text(path.read_text().replace("unused.py", "own_package.inner").replace("Net_unused", "Net_inner"))
    assert Config(path, custom_imports=["own_package.inner"]).dic["custom_imports"] == ["own_package.inner"]


@pytest.mark.parametrize("names, message", [
    (["nowhere.py"], "nowhere.py: no such file"), (["no_such_module_x"], "no_such_module_x: could not be imported"),
    (["broken.py"], "broken.py: could not be imported: ZeroDivisionError"), (["json.py"], "rename the file"),
    (["a b"], "neither a .py file nor the name of a module"), (["../x"], "neither a .py file"),
])  # fmt: skip
def test_what_cannot_be_imported(names, message, tmp_path):
    path = write(tmp_path, "plain")
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "json.py").write_text("")
    importlib.import_module("json")
    with pytest.raises(ConfigError, match=message):
        Config(path, custom_imports=names)
    path.write_text(path.read_text().replace("[plain.py]", "plain.py"))
    with pytest.raises(ConfigError, match="custom_imports: expected a list"):
        Config(path)


def test_every_program_that_reads_a_configuration_takes_the_flags():
    """The others read an exported folder, data, or no configuration's components."""
    without = set()
    for name, program in PROGRAMS.items():
        flags = importlib.import_module(program.module).make_parser()._option_string_actions
        if "--custom_imports" not in flags or "--trust_config" not in flags:
            without.add(name)
            assert "--opts" not in flags, name
    assert {"train", "val", "predict", "export", "convert", "report", "attention maps", "macs"} & without == set()


@pytest.mark.parametrize("name", ["infer", "quantize", "benchmark", "serve"])
def test_every_program_that_runs_an_exported_folder_imports_modules(name, tmp_path):
    """Before it looks at the folder, whose transforms they may be; in use: tests/deployment, tests/serving."""
    words = {
        "infer": ["--config", "out", "--image_path", "a.png"],
        "quantize": ["--config", "out", "--image_list", str(tmp_path / "list.txt")],
        "benchmark": ["--config", "out"],
        "serve": ["--model", "out"],
    }
    (tmp_path / "list.txt").write_text("a.png\n")
    program = importlib.import_module(PROGRAMS[name].module)
    with pytest.raises(ConfigError, match="--custom_imports: .*nowhere.py: no such file"):
        program.main([*words[name], "--custom_imports", "nowhere.py"])


def _run(*words, cwd, status=0, **environment):
    given = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, *map(str, words)], cwd=cwd, env=given, capture_output=True, text=True)
    assert done.returncode == status, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done


def test_training_in_two_processes_and_evaluation_of_its_run(tmp_path):
    convert_tree(generate(tmp_path / "data", train=2, val=1, size=(128, 64)), num_workers=0)
    path = write(tmp_path / "mine", "launched", data=str(tmp_path / "data"))
    launch = ("-m", "paddle.distributed.launch", "--nproc_per_node", 2, "--backend", "gloo", "--log_dir", "log")
    flags = ("--config", path, "--iters", 1, "--save_interval", 1, "--save_dir", "out")
    _run(*launch, ROOT / "train.py", *flags, "--custom_imports", "launched.py", cwd=tmp_path)
    stored = yaml.safe_load((tmp_path / "out" / "config.yml").read_text())
    assert stored["custom_imports"] == [str(tmp_path / "mine" / "launched.py")]
    val = ("-m", "paddle_dnl", "val", "--config", "out/config.yml", "--model_path", "out/iter_1/model.pdparams")
    refused = _run(*val, cwd=tmp_path, status=1)
    assert "launched.py is code" in refused.stderr and len(refused.stderr.strip().splitlines()) == 1
    assert "[EVAL] #Images: 1 " in _run(*val, "--trust_config", cwd=tmp_path).stdout


def test_installed_packages_offer_components(tmp_path):
    """By entry points; one that cannot be imported is a warning, and the others are there."""
    write(tmp_path, "plugin")
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[paddle_dnl.components]\na_broken = no_such_plugin_module\nmine = plugin\n")
    code = "from paddle_dnl import registry; print(registry.find('Net_plugin', 'model', 'model').__module__)"
    done = _run("-c", code, cwd=tmp_path, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}")
    assert done.stdout.strip().endswith("plugin")
    assert "entry point a_broken = no_such_plugin_module: not loaded: ModuleNotFoundError" in done.stdout
