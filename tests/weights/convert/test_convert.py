# SPDX-License-Identifier: Apache-2.0
"""The rules of conversion: which name becomes which, what is transposed, what is refused and with which words.

Most models are stand-ins that only have names and shapes, so that every case is quick; our models are converted
in test_convert_models.py and in tests/golden.
"""

import json
import re
from pathlib import Path

from paddle_dnl.errors import CheckpointError
from paddle_dnl.weights.convert import ConversionError, convert_state_dict, convert_with_report, looks_like

import golden_seeds
import numpy as np
import paddle
import pytest

GOLDEN = Path(__file__).parents[2] / "data" / "golden"


class StandIn:
    """A model that consists of tensors only."""

    def __init__(self, shapes: dict):
        self.tensors = {key: paddle.full(shape, 9.0) for key, shape in shapes.items()}

    def state_dict(self):
        return self.tensors


def spec_of(name: str) -> list:
    return json.loads((GOLDEN / name / "spec.json").read_text())["spec"]


# The table of dnl-dmnet.md section 4 written the other way round: our name -> theirs.
def mmseg_name(ours: str) -> str:
    head = {"head.cls.1": "decode_head.conv_seg", "head.aux.2": "auxiliary_head.conv_seg"}
    path, leaf = ours.rsplit(".", 1)
    leaf = {"_mean": "running_mean", "_variance": "running_var"}.get(leaf, leaf)
    inner = {"_conv": "conv", "_batch_norm": "bn"}
    parts = path.split(".")
    if path in head:
        return f"{head[path]}.{leaf}"
    if parts[:2] == ["head", "aux"]:
        return f"auxiliary_head.convs.0.{inner[parts[3]]}.{leaf}"
    if parts[:2] == ["head", "dnl_block"]:
        tail = {"theta": "theta.conv", "phi": "phi.conv", "g": "g.conv", "conv_mask": "conv_mask"}.get(parts[2])
        return f"decode_head.dnl_block.{tail or 'conv_out.' + inner[parts[3]]}.{leaf}"
    if parts[0] == "head":
        name = {"conv0": "convs.0", "conv1": "convs.1", "conv_cat": "conv_cat"}[parts[1]]
        return f"decode_head.{name}.{inner[parts[2]]}.{leaf}"
    if parts[1].startswith("conv1_"):
        position = 3 * (int(parts[1][-1]) - 1) + (parts[2] == "_batch_norm")
        return f"backbone.stem.{position}.{leaf}"
    stage, block = parts[1].split("_")[1:]
    place = f"backbone.layer{int(stage) + 1}.{block}"
    if parts[2] == "short":
        return f"{place}.downsample.{int(parts[3] == '_batch_norm')}.{leaf}"
    return f"{place}.{inner[parts[3]]}{int(parts[2][-1]) + 1}.{leaf}"


@pytest.fixture(scope="module")
def live_dnlnet():
    """PaddleSeg's own DNLNet-R50, an independent list of names."""
    from paddleseg.models import DNLNet, ResNet50_vd

    return DNLNet(19, ResNet50_vd(output_stride=8))


def test_mmseg_dnl_is_one_to_one_with_live_paddleseg(live_dnlnet):
    spec = spec_of("mmseg_dnl_r50_cityscapes_512x1024")
    state = {name: np.full(shape, i, "float32") for i, (name, shape) in enumerate(spec)}
    before = {key: value.copy() for key, value in state.items()}
    converted, report = convert_with_report(state, "mmseg", live_dnlnet)
    assert list(converted) == list(live_dnlnet.state_dict()) and len(converted) == 312
    for ours, value in converted.items():
        np.testing.assert_array_equal(value, state[mmseg_name(ours)], err_msg=ours)
    assert len(report.dropped) == 60 and all(k.endswith("num_batches_tracked") for k in report.dropped)
    assert not report.filled and not report.kept
    assert all(np.array_equal(state[key], before[key]) for key in before), "the source was changed"
    assert report.as_dict()["counts"] == {"mapped": 312, "dropped": 60, "filled": 0, "kept": 0}
    json.dumps(report.as_dict())


def test_own_copies_in_the_models_precision(live_dnlnet):
    spec = spec_of("mmseg_dnl_r50_cityscapes_512x1024")
    state = {name: np.ones(shape, "float16") for name, shape in spec}
    converted = convert_state_dict({f"module.{k}": v for k, v in state.items()}, "mmseg", live_dnlnet)
    state["decode_head.conv_seg.bias"][:] = 5
    assert converted["head.cls.1.bias"].dtype == np.float32 and converted["head.cls.1.bias"].max() == 1


def dgmn2_stand_in(name: str) -> tuple[dict, StandIn]:
    """A golden DGMN2 state and a model with the names and layouts that Paddle would have."""
    state = golden_seeds.seeded_state([row for row in spec_of(name) if ".block3." not in row[0]])
    shapes = {}
    for key, value in state.items():
        leaf = key.rsplit(".", 1)[1]
        if leaf == "num_batches_tracked":
            continue
        linear = value.ndim == 2 and not leaf.startswith("rel_")
        key = key.replace("running_mean", "_mean").replace("running_var", "_variance")
        shapes[key] = value.shape[::-1] if linear else value.shape
    return state, StandIn(shapes)


@pytest.mark.parametrize("decoder", ["fpn", "setr_naive", "setr_pup", "setr_mla"])
def test_dgmn2_transposes_linear_layers_and_nothing_else(decoder):
    state, model = dgmn2_stand_in(f"dgmn2_{decoder}_tiny")
    converted, report = convert_with_report(state, "dgmn2", model)
    turned = {row["from"] for row in report.mapped if row["how"] == "transposed"}
    linear = re.compile(r"backbone\.block\d\.\d\.(attn\.(qkv|proj|conv_offset)|mlp\.fc[12])\.weight")
    assert turned == {key for key in state if linear.fullmatch(key)} and len(turned) == 6 * 5
    square = "backbone.block1.0.attn"
    np.testing.assert_array_equal(converted[f"{square}.proj.weight"], state[f"{square}.proj.weight"].T)
    for table in ("rel_height", "rel_width"):  # 64 x 64 as well
        key = f"{square}.pos_emb.{table}"
        assert state[key].shape == (64, 64)
        np.testing.assert_array_equal(converted[key], state[key])


def test_dmnet_biases_are_zero_and_other_aux_width_needs_a_word():
    """mmseg has no bias before a norm and a 256 wide auxiliary head, PaddleSeg has 512."""
    from paddleseg.models import DMNet, ResNet50_vd

    model = DMNet(19, ResNet50_vd(output_stride=8))
    spec = spec_of("mmseg_dmnet_r50_cityscapes_512x1024")
    state = {name: np.full(shape, i, "float32") for i, (name, shape) in enumerate(spec)}
    with pytest.raises(ConversionError, match=r"auxiliary_head.*--skip_auxiliary"):
        convert_state_dict(state, "mmseg", model)
    converted, report = convert_with_report(state, "mmseg", model, skip_auxiliary=True)
    assert len(report.kept) == 8 and all(key.startswith("fcn_head.") for key in report.kept)
    zeros = {f"dcm_modules.{i}.input_redu_conv._conv.bias" for i in range(4)} | {"bottleneck._conv.bias"}
    assert set(report.filled) == zeros and all(not converted[key].any() for key in zeros)
    pairs = {
        "dcm_modules.2.filter_gen_conv.bias": "decode_head.dcm_modules.2.filter_gen_conv.bias",
        "dcm_modules.1.norm._variance": "decode_head.dcm_modules.1.norm.running_var",
        "dcm_modules.3.input_redu_conv._batch_norm.bias": "decode_head.dcm_modules.3.input_redu_conv.bn.bias",
        "bottleneck._conv.weight": "decode_head.bottleneck.conv.weight",
        "cls.weight": "decode_head.conv_seg.weight",
    }
    for ours, theirs in pairs.items():
        np.testing.assert_array_equal(converted[ours], state[theirs])
    present = model.state_dict()["fcn_head.1.bias"].numpy()
    np.testing.assert_array_equal(converted["fcn_head.1.bias"], present)


# ------------------------------------------------------------------------------------------- refusals


@pytest.fixture
def small():
    """A ResNet backbone of one block, for quick refusals."""
    state = {
        "stem.0.weight": np.ones((4, 3, 3, 3), "float32"),
        "layer1.0.conv1.weight": np.ones((4, 4, 1, 1), "float32"),
        "layer1.0.bn1.running_mean": np.ones(4, "float32"),
        "fc.weight": np.ones((10, 4), "float32"),
    }
    shapes = {"conv1_1._conv.weight": [4, 3, 3, 3], "bb_0_0.conv0._conv.weight": [4, 4, 1, 1]}
    return state, StandIn({**shapes, "bb_0_0.conv0._batch_norm._mean": [4]})


def test_an_imagenet_file_fills_a_backbone(small):
    state, model = small
    _, report = convert_with_report(state, "mmseg", model)
    assert report.dropped == {"fc.weight": "ImageNet classifier"} and len(report.mapped) == 3


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda s: s.update({"layer1.1.conv1.weight": s["layer1.0.conv1.weight"]}),
            "without a place.*bb_0_1",
        ),
        (lambda s: s.update({"surprise": s["stem.0.weight"]}), "without a place in the model: surprise"),
        (lambda s: s.pop("layer1.0.conv1.weight"), "does not give: bb_0_0.conv0._conv.weight"),
        (
            lambda s: s.update({"stem.0.weight": np.ones((4, 3, 7, 7), "float32")}),
            r"\[4, 3, 7, 7\], the model wants",
        ),
        (lambda s: s["stem.0.weight"].fill(np.nan), "stem.0.weight holds NaN"),
        (lambda s: s.update({"stem.0.weight": np.array(["a"])}), "stem.0.weight is"),
    ],
)
def test_every_mismatch_is_named(small, change, message):
    state, model = small
    change(state)
    with pytest.raises(ConversionError, match=message) as caught:
        convert_state_dict(state, "mmseg", model)
    assert isinstance(caught.value, CheckpointError) and "\n" not in str(caught.value)


def test_two_tensors_for_one_place(small):
    state, model = small
    shape = state["stem.0.weight"].shape
    both = {"prefix.conv1.weight": np.ones(shape, "float32"), "conv1.weight": np.ones(shape, "float32")}
    with pytest.raises(ConversionError, match="two tensors for one place: conv1.weight -> conv1_1._conv.weight"):
        convert_state_dict(both, "official_dnl", model)


def test_wrong_source_and_unknown_source(small, live_dnlnet):
    state, model = small
    with pytest.raises(ConversionError, match="unknown source 'torch'; choose from mmseg"):
        convert_state_dict(state, "torch", model)
    with pytest.raises(ConversionError, match="dgmn2 has no resnet backbone.*can be: mmseg, official_dnl"):
        convert_state_dict(state, "dgmn2", model)
    with pytest.raises(ConversionError, match="no converter for this model"):
        convert_state_dict(state, "mmseg", StandIn({"weight": [1]}))
    spec = spec_of("official_dnl_temp_in_r101_cityscapes")
    official = {name: np.broadcast_to(np.float32(0), shape) for name, shape in spec}
    with pytest.raises(ConversionError, match=r"authors.*ResNet-101; the model is: DNLNet.*ResNet-50"):
        convert_state_dict(official, "mmseg", live_dnlnet)


def test_another_number_of_classes(live_dnlnet):
    spec = [[n, [7, *s[1:]] if "conv_seg" in n else s] for n, s in spec_of("mmseg_dnl_r50_cityscapes_512x1024")]
    state = {name: np.broadcast_to(np.float32(1), shape) for name, shape in spec}
    with pytest.raises(ConversionError, match=r"decode_head.conv_seg.weight -> .*\[7, .*--skip_classifier"):
        convert_state_dict(state, "mmseg", live_dnlnet)
    converted, report = convert_with_report(state, "mmseg", live_dnlnet, skip_classifier=True)
    assert set(report.kept) == {
        "head.cls.1.weight",
        "head.cls.1.bias",
        "head.aux.2.weight",
        "head.aux.2.bias",
    }
    own = live_dnlnet.state_dict()["head.cls.1.weight"].numpy()
    np.testing.assert_array_equal(converted["head.cls.1.weight"], own)
    assert report.dropped["decode_head.conv_seg.weight"] == "classifier skipped as asked"


@pytest.mark.parametrize(
    "name, phrase",
    [
        ("mmseg_dnl_r50_cityscapes_512x1024", "OpenMMLab DNL with ResNet-50"),
        ("mmseg_dmnet_r50_cityscapes_512x1024", "OpenMMLab DMNet with ResNet-50"),
        ("official_dnl_temp_in_r101_cityscapes", "DNL by its authors (official_dnl) with ResNet-101"),
        ("dgmn2_setr_mla_tiny", "segmentor in OpenMMLab's naming with DGMN2-Tiny"),
        ("dgmn2_fpn_small", "segmentor in OpenMMLab's naming with DGMN2-Small"),
    ],
)
def test_files_are_recognised_in_messages(name, phrase):
    assert looks_like(key for key, _ in spec_of(name)) == phrase


def test_a_stranger_is_not_recognised():
    assert looks_like(["a", "b"]) == "nothing known here (first names: a, b)"
