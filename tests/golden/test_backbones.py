# SPDX-License-Identifier: Apache-2.0
"""ResNets with start weights of other projects: every stage's features against those of the originals.

torchvision's and timm's were stored by tests/reference/backbones.py (PyTorch); `paddle.vision.models` runs live.
"""

import json
from pathlib import Path

from paddle_dnl.models.backbones.resnet import ResNet
from paddle_dnl.weights.convert import backbone_only, convert_with_report, recognise
from paddle_dnl.weights.loading import load_weights

import golden_seeds
import numpy as np
import paddle
import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden" / "backbones"
SHAPE = (1, 3, 65, 97)
DEEP = ("101", "152")


def _cases(*patterns):
    for pattern in patterns:
        for depth in (18, 34, 50, 101, 152):
            name = pattern.format(depth)
            marks = pytest.mark.slow if str(depth) in DEEP else ()
            yield pytest.param(name, depth, marks=marks, id=name)


def _ours(state, depth):
    """Our network with the file's weights, set up as `recognise` says."""
    found = recognise(backbone_only(state)[0])
    # timm's basic blocks do not project where shapes agree.
    model = ResNet(depth, found.stem, output_stride=32, project_first=not (found.source == "timm" and depth < 50))
    converted, report = convert_with_report(state, found.source, model, part="backbone")
    assert not report.warnings and not report.kept and not report.filled
    load_weights(model, converted)
    model.eval()
    return model


def _same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a / np.abs(b).max(), b / np.abs(b).max(), atol=3e-5)


@pytest.mark.parametrize("name, depth", list(_cases("resnet{}", "resnet{}d")))
def test_torchvision_and_timm(name, depth):
    with np.load(GOLDEN / f"{name}.npz") as stored:
        state = golden_seeds.seeded_state(json.loads(stored["about"].tobytes())["spec"])
        expected = [stored[f"stage{i}"] for i in range(4)]
    model = _ours(state, depth)
    with paddle.no_grad():
        found = model(paddle.to_tensor(golden_seeds.seeded_input(name, SHAPE)))
    _same([feature.numpy()[:, ::16] for feature in found], expected)


@pytest.mark.parametrize("name, depth", list(_cases("resnet{}")))
def test_paddle_vision(name, depth):
    live = getattr(paddle.vision.models, name)()
    with paddle.no_grad():
        live(paddle.randn([2, 3, 64, 64]))  # in training mode: moves the batch statistics
    live.eval()
    model = _ours({key: value.numpy() for key, value in live.state_dict().items()}, depth)
    x = paddle.randn(list(SHAPE))
    with paddle.no_grad():
        y, theirs = live.maxpool(live.relu(live.bn1(live.conv1(x)))), []
        for stage in (live.layer1, live.layer2, live.layer3, live.layer4):
            y = stage(y)
            theirs.append(y.numpy())
        _same([feature.numpy() for feature in model(x)], theirs)
