# SPDX-License-Identifier: Apache-2.0
"""Start weights: required by published recipes, read from every format, accounted for, refused where they do not fit."""

import json
from pathlib import Path

from paddle_dnl.cli import train
from paddle_dnl.config import Config
from paddle_dnl.errors import CheckpointError, ConfigError, UsageError
from paddle_dnl.log import logger
from paddle_dnl.models.backbones.resnet import ResNet, ResNet18
from paddle_dnl.models.build import build_model
from paddle_dnl.models.start_weights import load_start_weights, require_start_weights
from paddle_dnl.weights.convert import convert_with_report, recognise
from paddle_dnl.weights.loading import write_safetensors

import numpy as np
import paddle
import pytest
import torch_writer
from source_names import paddleclas_names, torch_names

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/data/golden/backbones"
DGMN2 = "configs/dgmn2/fpn_dgmn2_tiny_cityscapes_769x769_40k.yml"
OFFICIAL = "configs/dnlnet/official/dnl_temp_in_resnet101_cityscapes_769x769_60k.yml"
SMALL = {"type": "DNLNet", "num_classes": 3, "dialect": "mmseg"}


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(logger, "info", lines.append)
    return lines


def numbers(model) -> dict[str, np.ndarray]:
    return {key: value.numpy() for key, value in model.state_dict().items()}


def segmentor(backbone) -> dict[str, np.ndarray]:
    """A file of a whole network."""
    return {f"backbone.{key}": value for key, value in backbone.items()} | {"decode_head.conv_seg.bias": np.ones(3)}


def load(model_cfg: dict, path) -> dict[str, np.ndarray]:
    """The backbone after its start weights were loaded as train.py loads them."""
    model = build_model(model_cfg)
    with_weights = {**model_cfg, "backbone": {**model_cfg["backbone"], "pretrained": str(path)}}
    load_start_weights(model, with_weights)
    return numbers(model.backbone)


FORMATS = {
    "v1c.pth": ("v1c", lambda s, path: torch_writer.save(torch_names(s, "v1c"), path)),
    "segmentor.pth": ("v1c", lambda s, path: torch_writer.save(segmentor(torch_names(s, "v1c")), path)),
    "v1_stream.pth": ("v1", lambda s, path: torch_writer.save_stream(torch_names(s, "v1"), path, wrapper=None)),
    "3x3.pth": ("3x3", lambda s, path: torch_writer.save(torch_names(s, "3x3"), path, prefix="module.")),
    "v1.safetensors": ("v1", lambda s, path: write_safetensors(torch_names(s, "v1"), path)),
    "own.safetensors": ("v1c", write_safetensors),
    "vd.pdparams": ("vd", lambda s, path: paddle.save({k: paddle.to_tensor(v) for k, v in s.items()}, str(path))),
    "paddleclas.pdparams": ("vd", lambda s, path: paddle.save(
        {k: paddle.to_tensor(v) for k, v in paddleclas_names(s, (2, 2, 2, 2)).items()}, str(path))),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_converted_and_accounted_for(name, tmp_path, said):
    stem, write = FORMATS[name]
    expected = numbers(ResNet18(stem=stem))
    write(expected, tmp_path / name)
    found = load({**SMALL, "backbone": {"type": "ResNet18", "stem": stem}}, tmp_path / name)
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    assert f"{len(expected)} tensors taken" in said[-1]
    if "own" not in name and "paddle" not in name and "vd" not in name:
        assert "1 left (ImageNet classifier)" in said[-1]
    assert name != "segmentor.pth" or "1 left (not part of the backbone)" in said[-1]


def test_paddleclas_counts_blocks_through_the_stages():
    """The names of PaddleClas 2.6: all blocks in one row."""
    model = ResNet(50, "vd")
    state = paddleclas_names(numbers(model), (3, 4, 6, 3))
    assert "blocks.12.conv2.bn._variance" in state and "blocks.15.conv0.conv.weight" in state
    assert recognise(state).source == "paddleclas"
    converted, report = convert_with_report(state, "paddleclas", model, part="backbone")
    assert len(report.mapped) == len(state) and not report.dropped
    np.testing.assert_array_equal(converted["bb_2_5.conv1._conv.weight"], state["blocks.12.conv1.conv.weight"])


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_first_convolution_is_adapted_to_other_image_channels(channels, tmp_path, said):
    """The rule of timm's `adapt_input_conv`, in float64, from the numbers in the file."""
    state = torch_names(numbers(ResNet18(stem="v1")), "v1")
    torch_writer.save(state, tmp_path / "v1.pth")
    backbone = {"type": "ResNet18", "stem": "v1", "in_channels": channels}
    found = load({**SMALL, "backbone": backbone}, tmp_path / "v1.pth")["conv1_1._conv.weight"]
    weight = np.float64(state["conv1.weight"])
    wanted = np.stack([weight[:, band % 3] * 3 / channels for band in range(channels)], axis=1)
    wanted = weight.sum(1, keepdims=True) if channels == 1 else wanted
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=1e-5, atol=1e-7)
    assert f"conv1.weight: made for {channels} channels from red, green and blue" in said[-1]


@pytest.mark.parametrize("stem, backbone, message", [
    ("v1c", {"type": "ResNet18", "stem": "vd"}, "ResNet-18 .*with stem v1c; this model has .*ResNet-18 with stem vd"),
    ("v1", {"type": "ResNet18", "stem": "v1c"}, "with stem v1; .*with stem v1c"),
    ("v1", {"type": "ResNet34", "stem": "v1"}, r"\d+ tensors found a place.*It fits --opts model.backbone.type=ResNet18"),
], ids=["stem", "other stem", "depth"])  # fmt: skip
def test_another_stem_or_depth_is_refused(stem, backbone, message, tmp_path):
    torch_writer.save(torch_names(numbers(ResNet18(stem=stem)), stem), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=message):
        load({**SMALL, "backbone": backbone}, tmp_path / "weights.pth")


def test_another_family_is_refused_with_a_configuration_that_fits(tmp_path):
    with np.load(GOLDEN / "resnet50.npz") as stored:
        spec = json.loads(stored["about"].tobytes())["spec"]
    state = {key: np.ones(shape, "float32") for key, shape in spec}
    state |= {key.replace("conv1.", "stem.0.", 1): value for key, value in state.items() if key == "conv1.weight"}
    torch_writer.save({key: value for key, value in state.items() if key != "conv1.weight"}, tmp_path / "v1c.pth")
    dgmn2 = {"type": "SemanticFPN", "num_classes": 3, "backbone": {"type": "DGMN2_Tiny", "output": "neck"}}
    with pytest.raises(
        CheckpointError,
        match=r"\d+ tensors of .*ResNet-50 \(mmseg\), none of which fits; .*DGMN2-Tiny.*It fits dmnet_r50-d8",
    ):
        load(dgmn2, tmp_path / "v1c.pth")
    small = {**SMALL, "backbone": {"type": "ResNet18", "stem": "vd"}}
    with pytest.raises(CheckpointError, match="It fits dnl_r50-d8_512x1024_40k_cityscapes, or any configuration with"):
        load(small, tmp_path / "v1c.pth")
    write_safetensors({"a.weight": np.ones(3, "float32")}, tmp_path / "strange.safetensors")
    with pytest.raises(CheckpointError, match="1 tensors, none of a backbone known here; it looks like nothing known"):
        load(small, tmp_path / "strange.safetensors")


def test_too_few_tensors_for_a_foreign_model_are_refused(tmp_path):
    model = build_model({"type": "UNet", "num_classes": 3})
    state = dict(list(numbers(model).items())[:10])
    write_safetensors(state, tmp_path / "few.safetensors")
    with pytest.raises(CheckpointError, match="only 10 of the model's"):
        load_start_weights(model, {"type": "UNet", "pretrained": str(tmp_path / "few.safetensors")})


# ---- published recipes --------------------------------------------------------------------------------


@pytest.mark.parametrize("config, file, source", [
    (DGMN2, "dgmn2_tiny_model.pth", "dgmn2"), (OFFICIAL, "3x3resnet101-imagenet.pth", "official_dnl"),
])  # fmt: skip
def test_a_published_recipe_needs_its_start_weights(config, file, source, tmp_path):
    with pytest.raises(ConfigError) as caught:
        require_start_weights(Config(ROOT / config))
    text = str(caught.value)
    assert "\n" not in text
    for part in (
        file,
        "https://drive.google.com/",
        f"--pretrained {file}",
        "paddle-dnl convert --source",
        "--from_scratch",
    ):
        assert part in text
    assert f"--source {source} --part backbone" in text
    require_start_weights(Config(ROOT / config, from_scratch=True))
    require_start_weights(Config(ROOT / config, opts=["model.backbone.pretrained=null"]))
    (tmp_path / "it's here.pth").touch()
    require_start_weights(Config(ROOT / config, pretrained=str(tmp_path / "it's here.pth")))
    with pytest.raises(CheckpointError, match="model.backbone.pretrained gone.pth: no such file"):
        require_start_weights(Config(ROOT / config, pretrained="gone.pth"))


def test_train_py_stops_before_it_looks_at_data(tmp_path):
    with pytest.raises(ConfigError, match="this recipe begins with the weights dgmn2_tiny_model.pth"):
        train.main(["--config", str(ROOT / DGMN2), "--device", "cpu", "--save_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="contradict"):
        train.parse_args(["--config", "c", "--pretrained", "f", "--from_scratch"])


def test_every_published_row_has_start_weights():
    """None of the recipes trains from random weights without being told to."""
    from paddle_dnl.config.zoo import read_rows

    for row in read_rows(ROOT / "configs/zoo.yml"):
        config = Config(ROOT / row["config"])
        named = config.model_cfg["backbone"].get("pretrained") or config.dic["start_weights"]["file"]
        assert Path(named).suffix in (".pth", ".gz"), row["config"]


@pytest.mark.parametrize("key", ["file", "from", "source"])
def test_an_incomplete_note_of_start_weights_is_refused(key):
    wrong = {name: "x" for name in ("file", "from", "source") if name != key}
    dic = Config(ROOT / DGMN2).dic
    with pytest.raises(ConfigError, match=rf"start_weights\.{key}: missing"):
        Config({**dic, "start_weights": wrong})
    with pytest.raises(ConfigError, match=r"start_weights\.form: unknown key. Did you mean 'from'"):
        Config({**dic, "start_weights": {"form": "x"}})
