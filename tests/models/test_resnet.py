# SPDX-License-Identifier: Apache-2.0
"""Our ResNet_vd is PaddleSeg's; the other stems have the shapes their authors describe."""

from paddle_dnl.models.backbones import resnet as ours

import numpy as np
import paddle
import pytest
from paddleseg.models import backbones as theirs


def _settle(model, seed=0):
    """Batch statistics that are not 0 and 1, or a swapped mean and variance would go unseen."""
    rng = np.random.default_rng(seed)
    for name, tensor in model.state_dict().items():
        if name.endswith("_mean"):
            tensor.set_value(rng.normal(0, 0.1, tensor.shape).astype("float32"))
        elif name.endswith("_variance"):
            tensor.set_value(rng.uniform(0.5, 1.5, tensor.shape).astype("float32"))


@pytest.mark.parametrize(
    "name, settings",
    [
        ("ResNet18_vd", {"output_stride": 8}),
        ("ResNet18_vd", {"output_stride": 32}),
        ("ResNet18_vd", {"output_stride": 32, "multi_grid": (1, 2, 4)}),
        ("ResNet34_vd", {"output_stride": 8, "multi_grid": (2, 1, 2)}),
        ("ResNet34_vd", {"output_stride": 16}),
        ("ResNet50_vd", {"output_stride": 8, "multi_grid": (1, 2, 4)}),
        ("ResNet50_vd", {"output_stride": 16, "in_channels": 1}),
        ("ResNet101_vd", {"output_stride": 8}),
    ],
)
def test_keys_and_function_of_paddleseg(name, settings):
    mine, live = getattr(ours, name)(**settings), getattr(theirs, name)(**settings)
    assert list(mine.feat_channels) == list(live.feat_channels)
    _settle(live)
    state = live.state_dict()
    assert set(mine.state_dict()) == set(state)
    assert {k: v.shape for k, v in mine.state_dict().items()} == {k: v.shape for k, v in state.items()}
    mine.set_state_dict({key: value.numpy() for key, value in state.items()})
    mine.eval(), live.eval()
    x = paddle.randn([1, settings.get("in_channels", 3), 65, 97])
    for a, b in zip(mine(x), live(x), strict=True):
        scale = float(b.abs().max())
        np.testing.assert_allclose(a.numpy() / scale, b.numpy() / scale, atol=1e-5)


@pytest.mark.parametrize("stem", ["vd", "v1c", "3x3", "v1"])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_output_strides(stem, stride):
    model = ours.ResNet18(stem=stem, output_stride=stride)
    model.eval()
    features = model(paddle.randn([1, 3, 64, 96]))
    sizes = [tuple(f.shape[2:]) for f in features]
    steps = [4, 8, min(16, stride), stride]
    # The authors' max-pool rounds up.
    assert [s[0] for s in sizes] == [64 // s + (stem == "3x3") for s in steps]
    assert [f.shape[1] for f in features] == list(model.feat_channels)


def test_the_authors_stem_rounds_up():
    """520 -> 66 rows at stride 8 with the ceil max-pool of the official code, 65 with floor."""
    x = paddle.randn([1, 3, 40, 40])
    official, vd = ours.ResNet18(stem="3x3"), ours.ResNet18(stem="v1c")
    official.eval(), vd.eval()
    assert official(x)[0].shape[2] == 11 and vd(x)[0].shape[2] == 10
    widths = [tuple(p.shape[:2]) for n, p in official.named_parameters() if n.startswith("conv1_") and p.ndim == 4]
    assert widths == [(64, 3), (64, 64), (128, 64)]


def test_refusals():
    with pytest.raises(ValueError):
        ours.ResNet18(stem="7x7")
    with pytest.raises(ValueError):
        ours.ResNet18(output_stride=5)
