# SPDX-License-Identifier: Apache-2.0
"""Configurations of a stranger that are plain YAML, and want code run, weights unpickled or files read without end."""

import os
import sys
import time

from paddle_dnl import registry
from paddle_dnl.compat import paddleseg
from paddle_dnl.config import Config
from paddle_dnl.config.reading import read_yaml_mapping
from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config
from paddle_dnl.errors import ConfigError
from paddle_dnl.models.build import build_model
from paddle_dnl.models.start_weights import load_start_weights

import hostile_pickles
import paddle
import pytest
from paddleseg.utils import utils as their_utils

BASE = """batch_size: 2
iters: 10
model: {type: FCN, num_classes: 2, backbone_indices: [0], backbone: {type: STDC1}}
train_dataset: {type: Dataset, dataset_root: ., train_path: train.txt, num_classes: 2, mode: train, transforms: []}
optimizer: {type: SGD, momentum: 0.9, weight_decay: 4e-5}
lr_scheduler: {type: PolynomialDecay, learning_rate: 0.01, power: 0.9}
loss: {types: [{type: CrossEntropyLoss}], coef: [1]}
"""
BACKBONE = "{type: STDC1}"
CODE = "__import__('pathlib').Path('marker').touch() or nn.LayerNorm"
SMALL = "img_size: 32, embed_dim: 8, depth: 1, num_heads: 2, final_norm: true"
BYTES = "!!binary X19pbXBvcnRfXygncGF0aGxpYicpLlBhdGgoJ21hcmtlcicpLnRvdWNoKCkgb3Igbm4uTGF5ZXJOb3Jt"  # CODE
EVIL = "{type: UNet, num_classes: 2, pretrained: evil.pdparams}"

# Text of BASE -> what the stranger wrote, and the key that the error names.
HOSTILE = {
    # ---- text that a component of paddleseg would run
    "ViT": (BACKBONE, f'{{type: VisionTransformer, {SMALL}, norm_layer: "{CODE}"}}', "model.backbone.norm_layer"),
    "named ViT": (
        BACKBONE, f'{{type: ViT_small_patch16_224, depth: 1, norm_layer: "{CODE}"}}', "model.backbone.norm_layer"),
    "CAE": (BACKBONE, f'{{type: CAE, {SMALL}, norm_layer: "{CODE}"}}', "model.backbone.norm_layer"),
    "bytes": (BACKBONE, f"{{type: CAE, {SMALL}, norm_layer: {BYTES}}}", "model.backbone.norm_layer"),
    "name that is no layer": (
        BACKBONE, f"{{type: CAE, {SMALL}, norm_layer: nn.functional.np.os.system}}", "model.backbone.norm_layer"),
    "name of Python": (BACKBONE, f"{{type: CAE, {SMALL}, norm_layer: breakpoint}}", "model.backbone.norm_layer"),
    "in a component that is no backbone": (
        "backbone_indices: [0]", f'backbone_indices: {{type: UNet, num_classes: 2, backbone: {{type: CAE, {SMALL}, '
        f'norm_layer: "{CODE}"}}}}', "model.backbone_indices"),
    "refinement": (
        "{type: FCN, num_classes: 2, backbone_indices: [0]", '{type: PPLiteSeg, num_classes: 2, arm_type: "UAFM or 1 / 0"',
        "model.arm_type"),
    "within an argument": (
        "{type: FCN, num_classes: 2, backbone_indices: [0]",
        f'{{type: SegNeXt, num_classes: 2, decoder_cfg: {{a: [{{b: "{CODE}"}}]}}', "model.decoder_cfg.a.0.b"),
    # ---- weights that a component of paddleseg would read
    "weights in an argument": ("backbone_indices: [0]", f"backbone_indices: {EVIL}", "model.backbone_indices.pretrained"),
    "weights in a list": ("backbone_indices: [0]", f"backbone_indices: [{EVIL}]", "model.backbone_indices.0.pretrained"),
    "weights of a second backbone": (
        BACKBONE, "[{type: STDC1, pretrained: evil.pdparams}]", "model.backbone.0.pretrained"),
    "weights from a server": (
        "backbone_indices: [0]", "backbone_indices: {type: UNet, num_classes: 2, pretrained: "
        "'http://127.0.0.1:1/a/evil.tar.gz'}", "model.backbone_indices.pretrained"),
    "weights in a loss": (
        "{type: CrossEntropyLoss}",
        "{type: SECrossEntropyLoss, backbone: {type: STDC1, pretrained: evil.pdparams}}",
        "loss.types.0.backbone.pretrained"),
    "weights in one of our components": (
        "{type: FCN, num_classes: 2, backbone_indices: [0]",
        f"{{type: DNLNet, num_classes: 2, backbone_indices: {EVIL}", "model.backbone_indices.pretrained"),
    "weights within an argument": (
        "{type: FCN, num_classes: 2, backbone_indices: [0]",
        "{type: SegNeXt, num_classes: 2, decoder_cfg: {pretrained: evil.pdparams}", "model.decoder_cfg.pretrained"),
    "weights in pairs": (
        "{type: FCN, num_classes: 2, backbone_indices: [0]",
        "{type: SegNeXt, num_classes: 2, decoder_cfg: !!pairs [a: {pretrained: evil.pdparams}]", "model.decoder_cfg.0.1"),
    "code in a set": (
        "{type: FCN, num_classes: 2, backbone_indices: [0]",
        f'{{type: SegNeXt, num_classes: 2, decoder_cfg: !!set {{"{CODE}"}}', "model.decoder_cfg.0"),
    "weights that are a component": (BACKBONE, f"{{type: STDC1, pretrained: {EVIL}}}", "model.backbone.pretrained"),
    "weights that are bytes": (
        BACKBONE, "{type: STDC1, pretrained: !!binary ZXZpbA==}", "model.backbone.pretrained"),
    # ---- datasets that a component of paddleseg would fetch and unpack
    "dataset from a server": (
        "{type: Dataset, dataset_root: ., train_path: train.txt, num_classes: 2, mode: train", "{type: DRIVE, mode: train",
        "train_dataset.dataset_root"),
    "dataset in a new folder": (
        "{type: Dataset, dataset_root: ., train_path: train.txt, num_classes: 2, mode: train",
        "{type: DRIVE, mode: train, dataset_root: new/folder", "train_dataset.dataset_root"),
}  # fmt: skip


@pytest.fixture
def cage(tmp_path, monkeypatch):
    """The working folder, with weights that run code; nothing may be loaded, fetched or written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pdparams").write_bytes(hostile_pickles.running(tmp_path / "marker")["os.system"])
    (tmp_path / "train.txt").write_text("a.png b.png\n")
    touched = []
    for module, name in ((paddle, "load"), (their_utils, "download_file_and_uncompress")):
        monkeypatch.setattr(module, name, lambda *args, name=name, **kwargs: touched.append(name))
    for name, module in list(sys.modules.items()):
        if name.startswith("paddleseg.datasets") and hasattr(module, "download_file_and_uncompress"):
            monkeypatch.setattr(
                module, "download_file_and_uncompress", lambda *args, **kwargs: touched.append("dataset")
            )
    yield tmp_path
    assert touched == []
    assert not (tmp_path / "marker").exists() and not (tmp_path / "new").exists()


def _use(path):
    """What a training builds of its configuration."""
    config = Config(path)
    with config.named_in_errors():
        registry.build(config.train_dataset_cfg, "dataset", "train_dataset")
        build_model(config)


@pytest.mark.parametrize("name", HOSTILE)
def test_configurations_that_want_more(cage, name):
    right, wrong, key = HOSTILE[name]
    assert right in BASE
    path = cage / "stranger.yml"
    path.write_text(BASE.replace(right, wrong, 1))
    with pytest.raises(ConfigError) as caught:
        _use(path)
    text = str(caught.value)
    assert "stranger.yml" in text and key in text and len(text) < 2000 and "\n" not in text, text


# The same without the checks of a whole configuration: only `model` sections, and steps of a deploy.yaml.
SECTIONS = {
    "code": ("model", {"type": "FCN", "num_classes": 2, "backbone": {"type": "CAE", "norm_layer": CODE}}),
    "code in bytes": (
        "model", {"type": "FCN", "num_classes": 2, "backbone": {"type": "CAE", "norm_layer": CODE.encode()}}),
    "weights": (
        "model", {"type": "FCN", "num_classes": 2, "backbone": {"type": "STDC1"},
        "backbone_indices": {"type": "UNet", "num_classes": 2, "pretrained": "evil.pdparams"}}),
    "backbone alone": ("backbone", {"type": "STDC1", "pretrained": "evil.pdparams"}),
    "step with a backbone": (
        "transform", {"type": "Compose", "backbone": {"type": "STDC1", "pretrained": "evil.pdparams"}}),
    "step with text": ("transform", {"type": "RandomBlur", "blur_type": CODE}),
    "type that is a list": ("transform", {"type": ["Normalize"]}),
}  # fmt: skip


@pytest.mark.parametrize("name", SECTIONS)
def test_sections_that_want_more(cage, name):
    kind, cfg = SECTIONS[name]
    with pytest.raises(ConfigError, match=r"norm_layer|pretrained|blur_type|type"):
        build_model(cfg) if kind == "model" else registry.build(cfg, kind)


def test_what_honest_configurations_say_still_works(cage):
    """Names of layers and of ways to do things, and start weights of a model and its backbone, read by our own reader."""
    cae = {"type": "CAE", "norm_layer": "nn.LayerNorm", "img_size": [32, 32], "drop_rate": 0.1, "pretrained": None}
    registry.refuse_harmful(registry.find("CAE", "backbone", "model.backbone"), cae, "backbone", "model.backbone")
    lite = {
        "type": "PPLiteSeg", "num_classes": 2, "arm_type": "UAFM_SpAtten", "resize_mode": "bilinear",
        "backbone": {"type": "STDC1", "pretrained": None},
    }  # fmt: skip
    build_model(lite)
    (cage / "base.yml").write_text(BASE)
    _use(cage / "base.yml")
    (cage / "good.yml").write_text(BASE.replace(BACKBONE, "{type: STDC1, pretrained: evil.pdparams}"))
    config = Config(cage / "good.yml")
    model = build_model(config)
    with pytest.raises(Exception, match="can be read safely"):
        load_start_weights(model, config.model_cfg)


# ------------------------------------------------------------------------------------------------ files of files


def _refused(path, read=Config) -> str:
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"\.ya?ml") as caught:
        read(path)
    text = str(caught.value)
    assert time.monotonic() - began < 20 and len(text) < 2000 and "\n" not in text
    return text


def test_bases_that_multiply(tmp_path):
    """Ten times ten times ten ... readings, without a circle."""
    for i in range(11):
        (tmp_path / f"step{i}.yml").write_text(f"_base_: [{', '.join([f'step{i + 1}.yml'] * 10)}]\n")
    (tmp_path / "step11.yml").write_text("iters: 1\n")
    assert "64" in _refused(tmp_path / "step0.yml")


def test_bases_without_end(tmp_path):
    for i in range(1000):
        (tmp_path / f"step{i}.yml").write_text(f"_base_: step{i + 1}.yml\n")
    (tmp_path / "step1000.yml").write_text("iters: 1\n")
    assert "16" in _refused(tmp_path / "step0.yml")


def test_a_deep_value_made_of_aliases(tmp_path):
    """Each line is shallow, each alias adds the depth of the one before."""
    lines = ["a0: &a0 " + "[" * 300 + "]" * 300]
    lines += [f"a{i}: &a{i} " + "[" * 300 + f"*a{i - 1}" + "]" * 300 for i in range(1, 20)]
    (tmp_path / "deep.yml").write_text("\n".join(lines) + "\n")
    assert "deep" in _refused(tmp_path / "deep.yml", read_yaml_mapping)


def _loop(path):
    path.symlink_to(path.name)


def _endless(path):
    path.symlink_to("/dev/zero")


def _unreadable_size(path):
    """A regular file that says it has no bytes, and has some."""
    path.symlink_to("/proc/self/maps")


@pytest.mark.parametrize(
    "make", [_loop, os.mkfifo, _endless, os.mkdir, _unreadable_size], ids=lambda make: make.__name__
)
@pytest.mark.parametrize("role", ["config", "base"])
def test_what_is_no_file(tmp_path, make, role):
    odd = tmp_path / "odd.yml"
    make(odd)
    path = odd
    if role == "base":
        path = tmp_path / "child.yml"
        path.write_text("_base_: odd.yml\n")
    assert "odd.yml" in _refused(path)


@pytest.mark.parametrize("name", ["x" * 5000 + ".yml", "a/" * 3000 + "b.yml", "'a\\0b.yml'", '"a\\0b.yml"'])
def test_names_that_no_file_can_have(tmp_path, name):
    path = tmp_path / "child.yml"
    path.write_text(f"_base_: {name}\n")
    assert "_base_" in _refused(path)
    if "\\" not in name:
        _refused(tmp_path / name)


def test_a_number_in_place_of_a_long_list(tmp_path):
    (tmp_path / "child.yml").write_text(f"_base_: [{'1, ' * 5000}1]\n")
    assert "_base_" in _refused(tmp_path / "child.yml")


@pytest.mark.parametrize(
    "name", ["x" * 5000, "a/" * 3000 + "b", "loop", '"a\\0b"'], ids=["long", "deep", "loop", "zero"]
)
@pytest.mark.parametrize("key", ["model", "params", "onnx"])
def test_exports_that_name_what_no_file_can_be(tmp_path, key, name):
    _loop(tmp_path / "loop")
    names = {"model": "net.json", "params": "net.pdiparams", key: name}
    for file in ("net.json", "net.pdiparams"):
        (tmp_path / file).write_bytes(b"")
    (tmp_path / "deploy.yaml").write_text("Deploy:\n" + "".join(f"  {key}: {value}\n" for key, value in names.items()))
    assert f"Deploy.{key}" in _refused(tmp_path / "deploy.yaml", read_deploy_config)


def test_a_users_own_component_takes_any_text(monkeypatch):
    """It is known by where it comes from, not by the registry that it was put into."""

    class Mine:
        def __init__(self, path):
            self.path = path

    monkeypatch.setitem(paddleseg.manager("transform").components_dict, "Mine", Mine)
    assert registry.build({"type": "Mine", "path": "/a folder/of (mine)"}, "transform").path == "/a folder/of (mine)"
