# SPDX-License-Identifier: Apache-2.0
"""Whole networks against golden outputs of the original implementations (weights: see tests/helpers/golden_seeds.py).

Each case goes the way a user goes: the configuration builds the model, `convert_with_report` maps the
original state dict (regenerated from names), the model gets it, and logits, loss and gradients are compared
with what the original code computed in float64. In float32 one ReLU input within rounding of zero turns a whole row
of backbone gradients on or off; so every case also runs in float64, where all gradients must agree.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from paddle_dnl.config import Config
from paddle_dnl.losses import build_losses
from paddle_dnl.models.build import build_model
from paddle_dnl.weights.convert import convert_with_report

import golden_seeds
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

DATA = Path(__file__).parents[1] / "data" / "golden"
CONFIGS = Path(__file__).parents[2] / "configs"
MMSEG, OFFICIAL = "dnlnet/mmseg/dnl", "dnlnet/official/dnl"
# name of the golden case: (source, configuration, part of the default run)
CASES = {
    "mmseg_dnl_r50_cityscapes_512x1024": ("mmseg", f"{MMSEG}_r50-d8_512x1024_40k_cityscapes", True),
    "mmseg_dnl_r50_cityscapes_769x769": ("mmseg", f"{MMSEG}_r50-d8_769x769_80k_cityscapes", False),
    "mmseg_dnl_r50_ade20k_512x512": ("mmseg", f"{MMSEG}_r50-d8_512x512_160k_ade20k", False),
    "mmseg_dmnet_r50_cityscapes_512x1024": (
        "mmseg",
        "dmnet/mmseg/dmnet_r50-d8_512x1024_40k_cityscapes",
        True,
    ),
    "official_dnl_temp_in_r101_cityscapes": (
        "official_dnl",
        f"{OFFICIAL}_temp_in_resnet101_cityscapes_769x769_60k",
        False,
    ),
    "official_dnl_temp_in_r101_cityscapes_evensize": (
        "official_dnl",
        f"{OFFICIAL}_temp_in_resnet101_cityscapes_769x769_60k",
        True,
    ),
    "official_dnl_nowd_ln_r101_cityscapes": (
        "official_dnl",
        f"{OFFICIAL}_nowd_ln_resnet101_cityscapes_769x769_60k",
        False,
    ),
    "dgmn2_fpn_tiny": ("dgmn2", "dgmn2/fpn_dgmn2_tiny_cityscapes_769x769_40k", True),
    "dgmn2_fpn_small": ("dgmn2", "dgmn2/fpn_dgmn2_small_cityscapes_769x769_40k", False),
    "dgmn2_setr_naive_tiny": ("dgmn2", "dgmn2/setr_naive_dgmn2_tiny_cityscapes_769x769_40k", False),
    "dgmn2_setr_pup_tiny": ("dgmn2", "dgmn2/setr_pup_dgmn2_tiny_cityscapes_769x769_40k", True),
    "dgmn2_setr_mla_tiny": ("dgmn2", "dgmn2/setr_mla_dgmn2_tiny_cityscapes_769x769_40k", False),
}
# Gradients this small, in float64, are zero in theory: biases that move all logits of a softmax alike, whitened queries.
ZERO_IN_THEORY = 1e-12
# Of logits (of the largest), loss, gradients (relative L2) and zero gradients (absolute). Paddle's bilinear resize has
# float32 weights in float64 too, hence no more than 1e-5 there.
TOLERANCES = {"float32": (1e-4, 1e-5, 1e-3, 1e-6), "float64": (2e-6, 1e-7, 1e-5, 1e-12)}
# For backbone gradients in float32 where the reference's own float32 run is off by more than 1e-4: a ReLU at its kink.
KINK, KINK_TOLERANCE = 1e-4, 2e-2


@dataclass
class Golden:
    """One case, computed once: the original's numbers and ours."""

    dtype: str
    meta: dict
    expected: dict
    logits: list
    features: list
    loss: float
    gradients: dict
    recipe: list


def _freeze_norms_and_dropout(model):
    """Training form, so that auxiliary logits come, but without batch statistics and dropout."""
    model.train()
    for layer in model.sublayers():
        if "Norm" in type(layer).__name__ or "Drop" in type(layer).__name__:
            layer.eval()


def _cross_entropy(logits, label):
    rows = logits.transpose([0, 2, 3, 1]).reshape([-1, logits.shape[1]])
    return F.cross_entropy(rows, label.reshape([-1]), ignore_index=255, reduction="mean")


def _gradients(model, report):
    """Gradients under the original's names and in its layout."""
    tensors, result = dict(model.named_parameters()), {}
    for row in report.mapped:
        gradient = getattr(tensors.get(row["to"]), "grad", None)
        if gradient is not None:
            value = gradient.numpy()
            result[row["from"]] = value.T if row["how"] == "transposed" else value
    return result


def _compute(name: str, dtype: str = "float32") -> Golden:
    spec = json.loads((DATA / name / "spec.json").read_text())
    source, config, _ = CASES[name]
    meta, expected = spec["meta"], dict(np.load(DATA / name / "out.npz"))
    state = golden_seeds.seeded_state(spec["spec"])
    np.testing.assert_allclose(golden_seeds.state_check(state), meta["state_check"], rtol=1e-9)
    model = build_model(CONFIGS / f"{config}.yml")
    converted, report = convert_with_report(state, source, model)
    assert {row["from"] for row in report.mapped} | set(report.dropped) == set(state)
    assert all(key.endswith("num_batches_tracked") for key in report.dropped) and not report.kept
    assert not report.warnings, "the configuration computes another function"
    assert model.set_state_dict(converted) in (None, ([], []))
    image = paddle.to_tensor(golden_seeds.seeded_input(name, meta["input_shape"]).astype(dtype))
    batch, _, height, width = meta["input_shape"]
    label = golden_seeds.seeded_label(name, (batch, height, width), meta["num_classes"])

    model.eval()
    features = []
    hook = model.backbone.register_forward_post_hook(lambda _, __, out: features.extend(out))
    with paddle.no_grad():
        logits = model(image)
    hook.remove()
    _freeze_norms_and_dropout(model)
    outputs, target = model(image), paddle.to_tensor(label)
    weights = (1.0, meta["aux_weight"])[: len(outputs)]
    loss = sum(w * _cross_entropy(out, target) for w, out in zip(weights, outputs, strict=True))
    loss.backward()
    recipe = build_losses(Config(CONFIGS / f"{config}.yml").loss_cfg)
    with paddle.no_grad():
        of_recipe = [float(value) for _, value in recipe(outputs, target)]
    as_numpy = [out.numpy() for out in logits], [f.numpy() for f in features]
    return Golden(dtype, meta, expected, *as_numpy, float(loss), _gradients(model, report), of_recipe)


def _cases():
    for dtype in TOLERANCES:
        for name, (_, _, default) in CASES.items():
            marks = () if default and dtype == "float32" else pytest.mark.slow
            yield pytest.param((name, dtype), marks=marks, id=f"{name}-{dtype}")


@pytest.fixture(scope="module", params=_cases())
def golden(request) -> Golden:
    name, dtype = request.param
    paddle.set_default_dtype(dtype)
    yield _compute(name, dtype)
    paddle.set_default_dtype("float32")


def test_logits(golden):
    expected = golden.expected["logits_sub4"]
    assert len(golden.logits) == 1, "auxiliary logits are for training only"
    full = golden.logits[0]
    assert full.dtype == golden.dtype and list(full.shape[2:]) == golden.meta["input_shape"][2:]
    ours = full[:, :, ::4, ::4]
    assert np.abs(ours - expected).max() <= TOLERANCES[golden.dtype][0] * np.abs(expected).max()
    assert (ours.argmax(1) == expected.argmax(1)).all()


def test_backbone_features(golden):
    assert [list(f.shape) for f in golden.features] == list(golden.meta["feat_shapes"].values())
    for i, feature in enumerate(golden.features):
        expected = float(golden.expected[f"feat{i}_mean_abs"])
        assert float(np.abs(feature).mean(dtype="float64")) == pytest.approx(expected, rel=1e-5), i


def test_loss(golden):
    expected = float(golden.expected["loss"])
    assert golden.loss == pytest.approx(expected, rel=TOLERANCES[golden.dtype][1])


def test_losses_of_the_recipe(golden):
    """As the configuration trains: over all pixels (OpenMMLab, DGMN2), with class weights (the authors' auxiliary one)."""
    expected = golden.expected
    if "loss_main_all_pixels" in expected:
        wanted = [float(expected["loss_main_all_pixels"])]
        if len(golden.recipe) == 2:
            wanted.append(0.4 * float(expected["loss_aux_all_pixels"]))
        assert golden.recipe == pytest.approx(wanted, rel=1e-5)
    else:
        # Mined pixels: test_official_losses.py.
        assert golden.recipe[1] == pytest.approx(0.4 * float(expected["official_ce_aux_weighted"]), rel=1e-5)


def _listed_gradients(golden):
    """Name, ours, theirs; of the large ones the first 256 values, whose sum of magnitudes is checked here."""
    relative = KINK_TOLERANCE if golden.dtype == "float32" else TOLERANCES[golden.dtype][2]
    for key, theirs in golden.expected.items():
        kind, _, name = key.partition("/")
        if kind in ("grad", "grad_first"):
            ours, theirs = golden.gradients[name].astype("float64"), theirs.astype("float64")
            if kind == "grad":
                assert ours.shape == theirs.shape, name
            else:
                total = float(golden.expected[f"grad_abs/{name}"])
                assert np.abs(ours).sum() == pytest.approx(total, rel=relative), name
            yield name, ours.ravel()[: theirs.size], theirs.ravel()


def test_gradients(golden):
    _, _, relative, absolute = TOLERANCES[golden.dtype]
    compared = 0
    for name, ours, theirs in _listed_gradients(golden):
        compared += 1
        error, size = np.linalg.norm(ours - theirs), np.linalg.norm(theirs)
        if size < ZERO_IN_THEORY:
            assert np.abs(ours).max() <= absolute, name
            continue
        noisy = golden.dtype == "float32" and golden.meta["f32_grad_rel_l2"][name] > KINK
        assert error <= (KINK_TOLERANCE if noisy else relative) * size, (name, error / size)
    assert compared > 20
