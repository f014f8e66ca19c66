# SPDX-License-Identifier: Apache-2.0
"""deploy.yaml: PaddleSeg's form, hostile forms, missing and damaged files."""

import os

from paddle_dnl.deployment.runtime.deploy_config import DeployConfig
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config, write_deploy_config
from paddle_dnl.errors import ConfigError, ExportError

import pytest
import yaml
from tiny_export import CLASSES, NORMALIZE


def _folder(tmp_path, text=None, **keys):
    section = {"model": "model.json", "params": "model.pdiparams", "transforms": [dict(NORMALIZE)]} | keys
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "model.json").write_bytes(b"graph")
    (folder / "model.pdiparams").write_bytes(b"weights")
    section = {key: value for key, value in section.items() if value != "absent"}
    (folder / "deploy.yaml").write_text(yaml.safe_dump({"Deploy": section}) if text is None else text)
    return folder


def test_what_is_written_is_read(tmp_path):
    folder = _folder(tmp_path)
    wrote = DeployConfig(
        folder, "model.json", "model.pdiparams", [dict(NORMALIZE)], [1, 3, 4, 8], "softmax", "float32", CLASSES
    )
    wrote.verified = {"paddle": {"ok": True, "max_relative_difference": 4.4e-07}}
    wrote.hash_files()
    write_deploy_config(wrote)
    for path in (folder, folder / "deploy.yaml", str(folder)):
        found = read_deploy_config(path)
        assert found == wrote
    assert found.fixed_size == (4, 8) and found.fixed_batch == 1
    found.check_files("model.json", "model.pdiparams")


def test_paddleseg_folder_of_three_keys(tmp_path):
    found = read_deploy_config(_folder(tmp_path))
    assert (found.input_shape, found.output_op, found.classes, found.sha256) == (None, "argmax", None, {})
    assert found.fixed_size is None and found.fixed_batch is None


def test_paddleseg_names_pdmodel_whatever_was_written(tmp_path):
    assert read_deploy_config(_folder(tmp_path, model="model.pdmodel")).model == "model.json"


@pytest.mark.parametrize(
    "keys, text",
    [
        ({"model": "/etc/passwd"}, "Deploy.model.*leads out"),
        ({"params": "../model.pdiparams"}, "Deploy.params.*leads out"),
        ({"params": "a/../../model.pdiparams"}, "Deploy.params.*leads out"),
        ({"model": "..\\model.json"}, "Deploy.model.*leads out"),
        ({"model": "C:\\model.json"}, "Deploy.model.*leads out"),
        ({"onnx": "/tmp/model.onnx"}, "Deploy.onnx.*leads out"),
        ({"onnx_int8": "../model_int8.onnx"}, "Deploy.onnx_int8.*leads out"),
        ({"onnx_int8": 8}, "Deploy.onnx_int8: expected a file name"),
        ({"model": ["model.json"]}, "Deploy.model: expected a file name"),
        ({"model": ""}, "Deploy.model: expected a file name"),
        ({"model": "."}, "Deploy.model.*is the folder itself"),
        ({"params": "./"}, "Deploy.params.*is the folder itself"),
        ({"onnx": ".//."}, "Deploy.onnx.*is the folder itself"),
        ({"model": "a" * 300 + ".pdmodel"}, "Deploy.model.*cannot be the name"),
        ({"model": "absent"}, "Deploy.model: missing"),
        ({"model": "model.onnx"}, "Deploy.model.*must end with .pdmodel or .json"),
        ({"model": "model.json.pdmodel"}, "Deploy.model.*must end with"),
        ({"onnx": "model.xml"}, "Deploy.onnx.*must end with .onnx"),
        ({"onnx_int8": "model.json"}, "Deploy.onnx_int8.*must end with .onnx"),
        ({"params": "absent"}, "Deploy.params: missing"),
        ({"transforms": {"type": "Normalize"}}, "Deploy.transforms"),
        ({"transforms": [{"mean": 1}]}, "Deploy.transforms"),
        ({"output_op": "rm"}, "Deploy.output_op"),
        ({"input_shape": [1, 3, 8]}, "Deploy.input_shape"),
        ({"input_shape": [1, 3, 0, 8]}, "Deploy.input_shape"),
        ({"input_shape": [1, 3, 10**12, 8]}, "Deploy.input_shape"),
        ({"input_shape": [1, 3, 1048575, 1048575]}, "Deploy.input_shape.*too large"),
        ({"input_shape": [1048575, 3, 512, 1024]}, "Deploy.input_shape.*too large"),
        ({"input_shape": [-1, 1048575, -1, -1]}, "Deploy.input_shape.*too large"),
        ({"input_shape": [1, 3, "8", True]}, "Deploy.input_shape"),
        ({"class_names": ["a"], "class_colors": []}, "Deploy.class_names"),
        ({"class_names": ["a"], "class_colors": [[0, 0, 256]]}, "Deploy.class_names"),
        ({"verified": [1]}, "Deploy.verified"),
        ({"verified": {"mkldnn": True}}, "Deploy.verified"),
        ({"sha256": {"model.json": 1}}, "Deploy.sha256"),
    ],
)
def test_refused_with_the_key(tmp_path, keys, text):
    folder = _folder(tmp_path, **keys)
    with pytest.raises(ConfigError, match=text) as caught:
        read_deploy_config(folder)
    assert str(folder / "deploy.yaml") in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Deploy",
        "Deploy: [1]",
        "Model: {}",
        "Deploy: {model: [",
        "Deploy: !!python/object/apply:os.system ['touch hacked']",
        "Deploy: {model: !!python/name:os.system , params: b}",
        "\x00",
        "a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
        "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
        "e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nDeploy: *e\n",
    ],
)
def test_text_that_is_no_deploy_yaml(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = _folder(tmp_path, text)
    with pytest.raises(ConfigError, match="deploy.yaml"):
        read_deploy_config(folder)
    assert not (tmp_path / "hacked").exists() and not (folder / "hacked").exists()


def test_links_out_of_the_folder_are_refused(tmp_path):
    folder = _folder(tmp_path)
    (tmp_path / "secret").write_bytes(b"weights")
    os.remove(folder / "model.pdiparams")
    os.symlink(tmp_path / "secret", folder / "model.pdiparams")
    with pytest.raises(ConfigError, match="Deploy.params.*link out"):
        read_deploy_config(folder)


def test_missing_files_are_named(tmp_path):
    folder = _folder(tmp_path)
    os.remove(folder / "model.pdiparams")
    with pytest.raises(ExportError, match="model.pdiparams: missing"):
        read_deploy_config(folder)
    os.remove(folder / "deploy.yaml")
    with pytest.raises(ConfigError, match="deploy.yaml"):
        read_deploy_config(folder)
    with pytest.raises(ConfigError, match="nowhere"):
        read_deploy_config(tmp_path / "nowhere")


def test_an_onnx_file_beside_is_found(tmp_path):
    folder = _folder(tmp_path)
    assert read_deploy_config(folder).onnx is None
    (folder / "model.onnx").write_bytes(b"")
    assert read_deploy_config(folder).onnx == "model.onnx"
