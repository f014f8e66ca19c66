# SPDX-License-Identifier: Apache-2.0
"""The losses of the DNL authors' training on their own network's logits, against what their code computed."""

import json
import re

from paddle_dnl.config import Config
from paddle_dnl.losses import CrossEntropyLoss, OhemCrossEntropyLoss, build_losses
from paddle_dnl.models.build import build_model
from paddle_dnl.weights.convert import convert_state_dict

import golden_seeds
import numpy as np
import paddle
import pytest
from test_golden_models import CASES, CONFIGS, DATA, _freeze_norms_and_dropout

NAME = "official_dnl_temp_in_r101_cityscapes"


@pytest.fixture(scope="module")
def case():
    """Main and auxiliary logits, labels, the stored losses, and the class weights of the configuration."""
    spec = json.loads((DATA / NAME / "spec.json").read_text())
    meta, source, path = spec["meta"], CASES[NAME][0], CONFIGS / f"{CASES[NAME][1]}.yml"
    model = build_model(path)
    model.set_state_dict(convert_state_dict(golden_seeds.seeded_state(spec["spec"]), source, model))
    _freeze_norms_and_dropout(model)
    with paddle.no_grad():
        outputs = model(paddle.to_tensor(golden_seeds.seeded_input(NAME, meta["input_shape"])))
    batch, _, height, width = meta["input_shape"]
    label = golden_seeds.seeded_label(NAME, (batch, height, width), meta["num_classes"])
    config = Config(path).loss_cfg
    return outputs, paddle.to_tensor(label), np.load(DATA / NAME / "out.npz"), config


def test_cross_entropy(case):
    outputs, label, expected, config = case
    for suffix, weight in (("", None), ("_weighted", config["types"][1]["weight"])):
        for name, logits in zip(("main", "aux"), outputs, strict=True):
            wanted = float(expected[f"official_ce_{name}{suffix}"])
            assert float(CrossEntropyLoss(weight=weight)(logits, label)) == pytest.approx(wanted, rel=1e-5)


def test_hard_pixels(case):
    """Thresholds and least numbers of pixels, more than there are among them, with and without class weights."""
    outputs, label, expected, config = case
    compared = 0
    for key in expected.files:
        found = re.fullmatch(r"official_ohem(_weighted)?/thresh([\d.]+)_minkeep(\d+)", key)
        if found:
            weight = config["types"][0]["weight"] if found[1] else None
            loss = OhemCrossEntropyLoss(float(found[2]), weight=weight, min_kept_per_image=int(found[3]))
            assert float(loss(outputs[0], label)) == pytest.approx(float(expected[key]), rel=1e-5), key
            compared += 1
    assert compared == 10


def test_the_configuration_has_these_losses(case):
    outputs, label, expected, config = case
    found = [float(value) for _, value in build_losses(config)(outputs, label)]
    main = float(expected["official_ohem_weighted/thresh0.7_minkeep100000"])
    assert found == pytest.approx([main, 0.4 * float(expected["official_ce_aux_weighted"])], rel=1e-5)
