# SPDX-License-Identifier: Apache-2.0
"""Conversion into our own models from every source, whole models and backbones. What they compute: tests/golden."""

import json
import re
from pathlib import Path

from paddle_dnl.models.backbones.dgmn2 import DGMN2_Tiny
from paddle_dnl.models.backbones.resnet import ResNet18_vd, ResNet50, ResNet101
from paddle_dnl.models.dmnet import DMNet
from paddle_dnl.models.dnlnet import DNLNet
from paddle_dnl.models.semantic_fpn import SemanticFPN
from paddle_dnl.weights.convert import ConversionError, convert_state_dict, convert_with_report

import golden_seeds
import numpy as np
import paddleseg.models as paddleseg_models
import pytest
from paddleseg.models import backbones as paddleseg_backbones

GOLDEN = Path(__file__).parents[2] / "data" / "golden"


def golden_state(name: str, prefix: str = "") -> dict:
    spec = json.loads((GOLDEN / name / "spec.json").read_text())["spec"]
    return {
        k[len(prefix) :]: v for k, v in golden_seeds.seeded_state([s for s in spec if s[0].startswith(prefix)]).items()
    }


def numpy_state(model) -> dict:
    return {key: value.numpy() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("source", ["paddleseg", "dmnet_paddle"])
def test_paddle_dmnet_keeps_every_tensor(source):
    live = paddleseg_models.DMNet(5, paddleseg_backbones.ResNet18_vd(output_stride=8), mid_channels=16)
    mine = DMNet(5, ResNet18_vd(), mid_channels=16)
    state = numpy_state(live) | {"StructuredToParameterName@@": {"a": "b"}}
    converted, report = convert_with_report(state, source, mine)
    assert list(converted) == list(mine.state_dict()) and list(report.dropped) == ["StructuredToParameterName@@"]
    for key, value in converted.items():
        np.testing.assert_array_equal(value, state[key], err_msg=key)


def test_paddleseg_dnlnet_keeps_every_tensor():
    live = paddleseg_models.DNLNet(5, paddleseg_backbones.ResNet50_vd(output_stride=8))
    mine = DNLNet(5, ResNet50(stem="vd"))
    state = numpy_state(live)
    converted = convert_state_dict(state, "paddleseg", mine)
    assert converted.keys() == state.keys()
    assert all(np.array_equal(converted[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    "case, source, make",
    [
        ("mmseg_dnl_r50_cityscapes_512x1024", "mmseg", lambda: ResNet50(stem="v1c")),
        ("official_dnl_temp_in_r101_cityscapes", "official_dnl", lambda: ResNet101(stem="3x3")),
        ("dgmn2_fpn_tiny", "dgmn2", DGMN2_Tiny),
    ],
)
def test_imagenet_files_fill_a_backbone(case, source, make):
    """They are the segmentor's backbone without prefix, plus a classifier. Every tensor keeps its sum."""
    state = golden_state(case, "backbone.")
    state = {key.removeprefix("prefix."): value for key, value in state.items()}
    classifier = "head" if source == "dgmn2" else "fc"
    imagenet = state | {f"{classifier}.weight": np.ones((1000, 8), "float32"), f"{classifier}.bias": np.ones(1000)}
    model = make()
    converted, report = convert_with_report(imagenet, source, model)
    assert list(converted) == list(model.state_dict())
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    assert set(report.dropped) == counters | {f"{classifier}.weight", f"{classifier}.bias"}
    assert len(converted) == len(state) - len(counters)
    for row in report.mapped:
        theirs = state[row["from"]]
        np.testing.assert_array_equal(converted[row["to"]], theirs.T if row["how"] == "transposed" else theirs)


def test_backbone_of_a_segmentor_goes_into_another_segmentor():
    """All DGMN2 output modes share their weights: MLA's backbone starts a Semantic FPN."""
    model = SemanticFPN(5, DGMN2_Tiny(output="neck"), neck_channels=8, head_channels=8)
    state = golden_state("dgmn2_setr_mla_tiny")
    converted, report = convert_with_report(state, "dgmn2", model, part="backbone")
    assert list(converted) == list(model.backbone.state_dict())
    assert report.dropped["decode_head.conv_seg.weight"] == "not part of the backbone"
    model.backbone.set_state_dict(converted)
    np.testing.assert_array_equal(
        model.backbone.block3[1].mlp.fc1.weight.numpy(), state["backbone.block3.1.mlp.fc1.weight"].T
    )


def test_other_dialect_depth_and_stem_are_refused():
    """What would compute something else does not load: the block's parts and the stem's widths differ."""
    state = golden_state("mmseg_dnl_r50_cityscapes_512x1024")
    with pytest.raises(ConversionError, match="conv_out"):
        convert_state_dict(state, "mmseg", DNLNet(19, ResNet50(stem="v1c"), dialect="official"))
    with pytest.raises(ConversionError, match="other shapes: .*stem.0.weight"):
        convert_state_dict(
            golden_state("mmseg_dnl_r50_cityscapes_512x1024", "backbone."), "mmseg", ResNet50(stem="3x3")
        )
    with pytest.raises(ConversionError, match="ResNet-50; the model is: .*ResNet-18"):
        convert_state_dict(state, "mmseg", DNLNet(19, ResNet18_vd()))


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: DNLNet(19, ResNet50(stem="v1c"), dialect="mmseg"), []),
        (lambda: DNLNet(19, ResNet50(stem="v1c")), ["dialect: .*'mmseg', this model has 'paddleseg'"]),
        (lambda: ResNet50(stem="vd"), ["stem: the weights of mmseg are for 'v1c', this model has 'vd'"]),
    ],
    ids=["mmseg", "paddleseg", "backbone"],
)
def test_equal_shapes_of_another_function_are_pointed_out(make, said):
    """PaddleSeg's DNLNet takes mmseg's tensors one for one and gives other logits: a ReLU, a dilation, a shortcut."""
    model = make()
    state = golden_state("mmseg_dnl_r50_cityscapes_512x1024", "" if hasattr(model, "head") else "backbone.")
    _, report = convert_with_report(state, "mmseg", model)
    assert len(report.warnings) == len(said)
    assert all(re.search(pattern, text) for pattern, text in zip(said, report.warnings, strict=True))


def test_nothing_is_changed_by_a_conversion():
    model = DGMN2_Tiny()
    before, state = numpy_state(model), golden_state("dgmn2_fpn_tiny", "backbone.")
    copies = {key: value.copy() for key, value in state.items()}
    converted = convert_state_dict(state, "dgmn2", model)
    for value in converted.values():
        value += 1
    assert all(np.array_equal(state[key], copies[key]) for key in state)
    assert all(np.array_equal(value, before[key]) for key, value in numpy_state(model).items())
    assert all(value.flags.c_contiguous for value in converted.values())
