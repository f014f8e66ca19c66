"""Whole networks against golden outputs of the original implementations (weights: see tests/golden_seeds.py).

Each case goes the way a user goes: the configuration builds the model, `convert_with_report` maps the
original state dict (regenerated from names), the model gets it, and logits, loss and gradients are compared
with what the original code computed in float64.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from paddle_dnl.convert import convert_with_report
from paddle_dnl.engine.build import build_model

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
# A bias that moves all logits of a softmax alike has no gradient in theory.
ZERO_IN_THEORY = ("conv_mask.bias", "conv_key.bias", "phi.conv.bias", "theta.conv.bias", "conv_query.bias")


@dataclass
class Golden:
    """One case, computed once: the original's numbers and ours."""

    name: str
    meta: dict
    expected: dict
    logits: list
    features: list
    loss: float
    gradients: dict


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


def _compute(name: str) -> Golden:
    spec = json.loads((DATA / name / "spec.json").read_text())
    source, config, _ = CASES[name]
    meta, expected = spec["meta"], dict(np.load(DATA / name / "out.npz"))
    state = golden_seeds.seeded_state(spec["spec"])
    np.testing.assert_allclose(golden_seeds.state_check(state), meta["state_check"], rtol=1e-9)
    model = build_model(CONFIGS / f"{config}.yml")
    converted, report = convert_with_report(state, source, model)
    assert {row["from"] for row in report.mapped} | set(report.dropped) == set(state)
    assert all(key.endswith("num_batches_tracked") for key in report.dropped) and not report.kept
    assert model.set_state_dict(converted) in (None, ([], []))
    image = paddle.to_tensor(golden_seeds.seeded_input(name, meta["input_shape"]))
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
    as_numpy = [out.numpy() for out in logits], [f.numpy() for f in features]
    return Golden(name, meta, expected, *as_numpy, float(loss), _gradients(model, report))


_DONE: dict[str, Golden] = {}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=() if default else pytest.mark.slow) for name, (_, _, default) in CASES.items()],
)
def golden(request) -> Golden:
    _DONE.clear()  # one model's gradients at a time
    return _DONE.setdefault(request.param, _compute(request.param))


def test_logits(golden):
    expected = golden.expected["logits_sub4"]
    assert len(golden.logits) == 1, "auxiliary logits are for training only"
    full = golden.logits[0]
    assert list(full.shape[2:]) == golden.meta["input_shape"][2:]
    ours = full[:, :, ::4, ::4]
    assert np.abs(ours - expected).max() <= 1e-4 * np.abs(expected).max()
    same = ours.argmax(1) == expected.argmax(1)
    top = np.sort(expected, axis=1)
    assert np.all(same | (top[:, -1] - top[:, -2] < 1e-3)), "a pixel that is no tie has another class"
    assert same.mean() >= 0.999


def test_backbone_features(golden):
    for i, feature in enumerate(golden.features):
        if f"feat{i}_mean_abs" in golden.expected:
            expected = float(golden.expected[f"feat{i}_mean_abs"])
            assert float(np.abs(feature).mean(dtype="float64")) == pytest.approx(expected, rel=1e-5), i


def test_loss(golden):
    assert golden.loss == pytest.approx(float(golden.expected["loss"]), rel=1e-5)


def test_gradients(golden):
    names = {key.split("/", 1)[1] for key in golden.expected if key.startswith("grad")}
    assert names
    errors = {}
    for name in sorted(names):
        ours = golden.gradients[name].astype("float64")
        if f"grad/{name}" in golden.expected:
            pairs = [(ours, golden.expected[f"grad/{name}"])]
        else:
            first = golden.expected[f"grad_first/{name}"]
            pairs = [(ours.ravel()[: first.size], first.ravel())]
            total = float(golden.expected[f"grad_abs/{name}"])
            assert abs(np.abs(ours).sum() - total) <= 2e-2 * total, name
        for got, want in pairs:
            assert got.shape == want.shape, name
            norms = np.linalg.norm(got - want), np.linalg.norm(want)
            errors[name] = (*norms, np.abs(got - want).max(), np.abs(want).max())
    print(golden.name, errors)
