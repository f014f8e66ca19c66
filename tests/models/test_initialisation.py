# SPDX-License-Identifier: Apache-2.0
"""Initial values of every parameter of every family: kind, mean and spread as in the network's source.

OpenMMLab's were measured on its own package (tests/reference/initialisation.py, which `make parity` runs again). The others
are written down here from their sources: PaddleSeg (whose live models are compared too), yinmh17/DNL-Semantic-Segmentation
at 594a359 (nonlocal_block.py, resnet_models.py, PyTorch's defaults elsewhere), fudan-zvg/DGMN2 at 7b51ee7 (which never
calls `init_weights`).
"""

import json
import math
import re
from pathlib import Path

from paddle_dnl.config import Config
from paddle_dnl.models.build import build_model
from paddle_dnl.nn.disentangled_nonlocal import DIALECTS, DisentangledNonLocal2D
from paddle_dnl.weights.convert import dgmn2, mmseg

import initial_values
import paddle
import paddleseg.models as paddleseg_models
import pytest
from paddleseg.models import backbones as paddleseg_backbones

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def _fan(shape, side: str) -> int:
    return shape[1 if side == "in" else 0] * math.prod(shape[2:])


# Expected (kind, root mean square or the constant) from a parameter's shape.
def _zero(shape):
    return "constant", 0.0


def _one(shape):
    return "constant", 1.0


def _paddle_conv(shape):
    return "normal", math.sqrt(2 / _fan(shape, "in"))


def _fan_out(shape):
    return "normal", math.sqrt(2 / _fan(shape, "out"))


def _torch_conv(shape):
    return "uniform", 1 / math.sqrt(3 * _fan(shape, "in"))


def _normal(std: float):
    return lambda shape: ("normal", std)


def _torch_bias(fan_in: int):
    return lambda shape: ("uniform", 1 / math.sqrt(3 * fan_in))


_NORMS = [
    (r".*\b(_batch_norm|norm\d?|bn|syncbn_fc_\d|head\d\.[14])\.(weight|_variance)", _one),
    (r".*\._mean", _zero),
]
_PADDLE = [*_NORMS, (r".*\.bias", _zero), (r".*\.weight", _paddle_conv)]
_OFFICIAL = [
    *_NORMS,
    (r"backbone\..*\.weight", _fan_out),
    (r"head\.dnl_block\.(theta|phi|g|conv_mask)\.weight", _normal(0.01)),
    (r"head\.dnl_block\.gamma", _zero),
    (r"head\.(cls\.1|aux\.2)\.bias", _torch_bias(512)),
    (r"head\..*\.weight", _torch_conv),
    (r".*\.bias", _zero),
]
_DGMN2 = [
    *_NORMS,
    (r"backbone\..*\.rel_(height|width)", lambda shape: ("normal", shape[1] ** -0.5)),
    (r"backbone\..*\.(qkv|proj|conv_offset|fc[12])\.weight", _normal(0.02)),
    (r"backbone\..*\.(norm\d\.weight)", _one),
    (r"backbone\.patch_embed.*\.weight", _torch_conv),
    (r"backbone\..*\.bias", _zero),
]
_SETR = [
    *_DGMN2,
    (r"decode_head\.conv_0\.bias", _torch_bias(512 * 9)),
    (r"decode_head\.conv_[12]\.bias", _torch_bias(256 * 9)),
    (r"decode_head\.(syncbn_fc_\d|mlahead\.head\d\.[14])\.bias", _zero),
    (r"decode_head\..*\.weight", _torch_conv),
]
_FPN = [
    *_DGMN2,
    (r"decode_head\.conv_seg\.weight", _torch_conv),
    (r"decode_head\.conv_seg\.bias", _torch_bias(128)),
    (r"(neck|decode_head)\..*\.weight", _fan_out),
    (r"(neck|decode_head)\..*\.bias", _zero),
]
_DGMN2_ROW = "dgmn2/{}_dgmn2_tiny_cityscapes_769x769_40k.yml"
CASES = {
    "dnlnet paddleseg": ("dnlnet/dnlnet_resnet50_os8_cityscapes_1024x512_80k.yml", _PADDLE),
    "dmnet paddleseg": ("dmnet/dmnet_resnet101_os8_cityscapes_1024x512_80k.yml", _PADDLE),
    "dnlnet official": ("dnlnet/official/dnl_temp_in_resnet101_ade20k_520x520_150k.yml", _OFFICIAL),
    "fpn": (_DGMN2_ROW.format("fpn"), _FPN),
    "setr naive": (
        _DGMN2_ROW.format("setr_naive"),
        [*_SETR[:-1], (r"decode_head\.conv_seg\.bias", _torch_bias(512)), _SETR[-1]],
    ),
    "setr pup": (
        _DGMN2_ROW.format("setr_pup"),
        [*_SETR[:-1], (r"decode_head\.conv_seg\.bias", _torch_bias(256)), _SETR[-1]],
    ),
    "setr mla": (
        _DGMN2_ROW.format("setr_mla"),
        [*_SETR[:-1], (r"decode_head\.conv_seg\.bias", _torch_bias(512)), _SETR[-1]],
    ),
}
MEASURED = {
    "mmseg_dnl_r50": ("dnlnet/mmseg/dnl_r50-d8_512x512_80k_ade20k.yml", mmseg.dnlnet_rules),
    "mmseg_dmnet_r50": ("dmnet/mmseg/dmnet_r50-d8_512x512_80k_ade20k.yml", mmseg.dmnet_rules),
    "mmseg_fpn": (_DGMN2_ROW.format("fpn"), dgmn2.head_rules),
}


def _deviations(parameters: dict, expected: dict) -> dict[str, str]:
    """Parameter -> why it does not have the expected distribution, given as (kind, scale[, numbers measured])."""
    found = {name: initial_values.difference(p.numpy(), *expected[name]) for name, p in parameters.items()}
    return {name: reason for name, reason in found.items() if reason}


@pytest.mark.parametrize("case", CASES)
def test_as_the_source_says(case):
    path, table = CASES[case]
    parameters = dict(build_model(Config(CONFIGS / path)).named_parameters())
    expected = {}
    for name, parameter in parameters.items():
        value = next((value for pattern, value in table if re.fullmatch(pattern, name)), None)
        assert value is not None, f"the table has no line for {name}"
        expected[name] = value(parameter.shape)
    assert _deviations(parameters, expected) == {}


@pytest.mark.parametrize("case", MEASURED)
def test_as_measured_on_openmmlab(case):
    path, head_rules = MEASURED[case]
    expected = {}
    for key, line in json.loads(initial_values.STORED.read_text())[case].items():
        inside = key.startswith("backbone.")
        module, _, leaf = key.removeprefix("backbone.").rpartition(".")
        rules = mmseg.backbone_rules() if inside else head_rules()
        target = next(target for rule in rules if (target := rule.apply(module)) is not None)
        expected[f"{'backbone.' if inside else ''}{target}.{leaf}"] = line
    parameters = dict(build_model(Config(CONFIGS / path)).named_parameters())
    if case == "mmseg_fpn":
        parameters = {name: p for name, p in parameters.items() if not name.startswith("backbone.")}
    parameters = {name: p for name, p in parameters.items() if not name.endswith(("._mean", "._variance"))}
    assert parameters.keys() == expected.keys()
    assert _deviations(parameters, expected) == {}


def test_live_paddleseg_starts_from_the_same():
    backbone = paddleseg_backbones.ResNet50_vd(output_stride=8)
    for live in (
        paddleseg_models.DNLNet(num_classes=19, backbone=backbone),
        paddleseg_models.DMNet(num_classes=19, backbone=backbone),
    ):
        parameters = dict(live.named_parameters())
        expected = {
            name: next(value for pattern, value in _PADDLE if re.fullmatch(pattern, name))(p.shape)
            for name, p in parameters.items()
        }
        assert _deviations(parameters, expected) == {}


def test_branches_of_the_block():
    """The convolutions that only some switches bring: OpenMMLab's `ConvModule`, the authors' one rule for all."""
    settings = dict(mode="concatenation", in_channels=64)
    block = DisentangledNonLocal2D(**settings, **DIALECTS["mmseg"])
    for conv in (block.conv_out._conv, block.concat_project._conv):
        assert not initial_values.difference(conv.weight.numpy(), *_fan_out(conv.weight.shape))
    block = DisentangledNonLocal2D(in_channels=64, output="conv_bn", init="official")
    assert not initial_values.difference(block.conv_out._conv.weight.numpy(), "normal", 0.01)
    block = DisentangledNonLocal2D(in_channels=64, init="official", init_std=0.03)
    for conv in (block.theta, block.g, block.conv_out._conv):
        assert not initial_values.difference(conv.weight.numpy(), "normal", 0.03)
    block = DisentangledNonLocal2D(in_channels=64, init_std=0.03)  # PaddleSeg's with this one switch
    assert not initial_values.difference(block.theta.weight.numpy(), "normal", 0.03)
    assert not initial_values.difference(block.conv_out._conv.weight.numpy(), *_paddle_conv([64, 32, 1, 1]))


@pytest.mark.parametrize("depth", [18, 50])
def test_residual_branches_of_v1c_start_at_zero(depth):
    model = build_model({"type": "DNLNet", "num_classes": 3, "backbone": {"type": f"ResNet{depth}", "stem": "v1c"}})
    norms = {n: p for n, p in model.backbone.named_parameters() if re.search(r"conv\d\._batch_norm\.weight", n)}
    last = f"conv{2 if depth >= 50 else 1}"
    for name, weight in norms.items():
        assert float(weight.abs().max()) == (0 if name.startswith("bb_") and f".{last}." in name else 1), name


def test_a_wrong_start_is_seen():
    """The comparison itself: each kind of deviation is named."""
    draw = paddle.normal(0.0, 0.02, [64, 64, 3, 3])
    assert initial_values.difference(draw.numpy(), "normal", 0.02) == ""
    assert "spread" in initial_values.difference(draw.numpy(), "normal", 0.021)
    assert "not uniform" in initial_values.difference(draw.numpy(), "uniform", 0.02)
    assert "mean" in initial_values.difference((draw + 0.001).numpy(), "normal", 0.02)
    assert "constant" in initial_values.difference(draw.numpy(), "constant", 0.0)
