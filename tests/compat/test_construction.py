# SPDX-License-Identifier: Apache-2.0
"""PaddleSeg's models through `Config`, built without its downloads, with its own backbones and our safe reader."""

from paddle_dnl import build_model
from paddle_dnl.config import Config
from paddle_dnl.errors import CheckpointError, ConfigError
from paddle_dnl.models.start_weights import load_start_weights
from paddle_dnl.registry import build

import numpy as np
import paddle
import pytest

BASE = """
batch_size: 2
iters: 10
train_dataset: {{type: Dataset, dataset_root: data, train_path: data/a.txt, num_classes: 3, mode: train, transforms: []}}
loss: {{types: [{{type: CrossEntropyLoss}}], coef: [1]}}
optimizer: {{type: AdamW, custom_cfg: [{{name: head, lr_mult: 10.0}}{rules}]}}
lr_scheduler: {{type: PolynomialDecay, learning_rate: 0.1}}
model: {model}
{more}
"""
VIT = "{type: VisionTransformer, img_size: 32, patch_size: 16, embed_dim: 8, depth: 2, num_heads: 2, pretrained: %s}"
SETR = "{type: SegmentationTransformer, head: naive, backbone_indices: [0, 1], backbone: %s}"


def _config(tmp_path, model, rules="", more=""):
    path = tmp_path / "config.yml"
    path.write_text(BASE.format(model=model, rules=rules, more=more))
    return Config(path)


def _vit(tmp_path, pretrained):
    return _config(tmp_path, SETR % (VIT % pretrained))


def test_a_backbone_that_insists_on_a_file_is_built_without_and_reads_it_safely(tmp_path):
    from paddleseg.models.backbones.vision_transformer import VisionTransformer
    from paddleseg.utils import utils

    model = build_model(_vit(tmp_path, "null"))
    start = {key: value.numpy() for key, value in model.backbone.state_dict().items()}
    rng = np.random.default_rng(0)
    start = {key: rng.normal(size=value.shape).astype(np.float32) for key, value in start.items()}
    start["pos_embed"] = rng.normal(size=(1, 1 + 3 * 3, 8)).astype(np.float32)  # of another size: it is resized
    path = tmp_path / "vit.pdparams"
    paddle.save({key: paddle.to_tensor(value) for key, value in start.items()}, str(path))

    config = _vit(tmp_path, path)
    model = build_model(config)
    load_start_weights(model, config.model_cfg)
    theirs = VisionTransformer(img_size=32, patch_size=16, embed_dim=8, depth=2, num_heads=2, pretrained=str(path))
    assert utils.load_pretrained_model.__module__ == "paddleseg.utils.utils" and paddle.load.__name__ == "load"
    for key, value in theirs.state_dict().items():
        np.testing.assert_array_equal(model.backbone.state_dict()[key].numpy(), value.numpy(), err_msg=key)
    assert model.backbone.state_dict()["pos_embed"].shape == [1, 5, 8]


def test_such_a_file_is_read_by_the_safe_reader(tmp_path):
    path = tmp_path / "evil.pdparams"
    path.write_bytes(b"cos\nsystem\n(S'touch %s/ran'\ntR." % str(tmp_path).encode())
    config = _vit(tmp_path, path)
    with pytest.raises(CheckpointError, match="evil.pdparams"):
        load_start_weights(build_model(config), config.model_cfg)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("model, home", [
    ("{type: SFNet, backbone: {type: ResNet18_vd, output_stride: 8}, backbone_indices: [0, 1, 2, 3]}", "paddleseg"),
    ("{type: DNLNet, backbone: {type: ResNet18_vd, output_stride: 8}}", "paddle_dnl"),
])  # fmt: skip
def test_models_of_paddleseg_have_their_own_backbone(tmp_path, model, home):
    backbone = build_model(_config(tmp_path, model)).backbone
    assert type(backbone).__module__.split(".")[0] == home


def test_number_of_classes_through_keyword_arguments(tmp_path):
    assert _config(tmp_path, "{type: DDRNet_23}").model_cfg["num_classes"] == 3


def test_components_are_typed_by_their_argument_or_found_in_any_registry(tmp_path):
    step = {"type": "PaddleSegCropOf", "steps": [{"type": "Normalize"}]}
    from paddle_dnl.registry import LOSSES

    class PaddleSegCropOf:
        def __init__(self, steps):
            self.steps = steps

    LOSSES.add_component(PaddleSegCropOf)
    try:
        assert type(build(step, "loss").steps[0]).__name__ == "Normalize"
    finally:
        del LOSSES.components_dict["PaddleSegCropOf"]


@pytest.mark.parametrize("rules, model, message", [
    (", {name: nowhere}", "{type: FCN, backbone: {type: ResNet18_vd}}", None),  # ResNet18 of develop is another network
    (", {name: nowhere}", "{type: DNLNet, backbone: {type: ResNet18}}", "no parameter of the model fits 'nowhere'"),
])  # fmt: skip
def test_rules_without_effect(tmp_path, capfd, rules, model, message):
    """PaddleSeg's files have them, and PaddleSeg makes empty groups."""
    from paddle_dnl.optim import build_optimizer

    config = _config(tmp_path, model, rules)
    net = build_model(config)
    if message is None:
        build_optimizer(config.optimizer_cfg, net, 0.1)
        assert "optimizer.custom_cfg.1: no effect, no parameter of the model fits 'nowhere'" in capfd.readouterr().out
    else:
        with pytest.raises(ConfigError, match=message):
            build_optimizer(config.optimizer_cfg, net, 0.1)


FCN = "{type: FCN, backbone: {type: ResNet18}}"


@pytest.mark.parametrize("more, line", [
    ("mean: &mean [0.5]\nstd: [1.0]\nweight: [1]", "mean: ignored"),
    ("uniform_output_enabled: true", "uniform_output_enabled: ignored"),
    ("batch_size: 2", "line 9: key 'batch_size' is given twice with the same value"),
    ("pdx_model_name: DNLNet", "pdx_model_name: ignored"),
    ("distill_loss: {types: [{type: MSELoss}], coef: [3]}", "distill_loss: ignored"),
])  # fmt: skip
def test_known_slips_are_one_warning(tmp_path, capfd, more, line):
    config = _config(tmp_path, FCN, more=more)
    assert capfd.readouterr().out.count(line) == 1
    assert set(config.dic) <= {"batch_size", "iters", "train_dataset", "loss", "optimizer", "lr_scheduler", "model"}


@pytest.mark.parametrize("more, message", [
    ("batch_size: 3", "key 'batch_size' is given twice"),
    ("means: [1]", "means: unknown key"),
])  # fmt: skip
def test_everything_else_is_an_error(tmp_path, more, message):
    with pytest.raises(ConfigError, match=message):
        _config(tmp_path, FCN, more=more)


def test_channels_that_a_model_does_not_have(tmp_path):
    path = tmp_path / "config.yml"
    text = BASE.format(model="{type: ENet}", rules="", more="").replace(
        "num_classes: 3", "num_classes: 3, img_channels: 4"
    )
    path.write_text(text)
    assert Config(path).model_cfg["in_channels"] == 4
    path.write_text(text.replace("{type: ENet}", "{type: PPMobileSeg, backbone: null}"))
    with pytest.raises(ConfigError, match="PPMobileSeg has no in_channels, so it takes 3 channels, not 4"):
        Config(path)
