# SPDX-License-Identifier: Apache-2.0
"""DMNet against the live PaddleSeg model, and where ours is better on purpose."""

from paddle_dnl.errors import ConfigError
from paddle_dnl.models.backbones.resnet import ResNet18, ResNet18_vd, ResNet50_vd
from paddle_dnl.models.dmnet import DMNet
from paddle_dnl.weights.loading import load_weights

import numpy as np
import paddle
import paddleseg.models as paddleseg_models
import pytest
from paddleseg.models import backbones as paddleseg_backbones


@pytest.mark.parametrize("fusion, filter_sizes", [(False, (1, 3, 5, 7)), (True, (2, 4, 15))], ids=str)
def test_same_weights_same_logits_as_paddleseg(tmp_path, fusion, filter_sizes):
    """Odd and even filters, one of them larger than the map of 8 x 12."""
    settings = {"num_classes": 5, "mid_channels": 32, "fusion": fusion, "filter_sizes": filter_sizes}
    live = paddleseg_models.DMNet(backbone=paddleseg_backbones.ResNet18_vd(output_stride=8), **settings)
    with paddle.no_grad():
        live(paddle.randn([2, 3, 64, 64]))
    path = tmp_path / "model.pdparams"
    paddle.save(live.state_dict(), str(path))
    mine = DMNet(backbone=ResNet18_vd(output_stride=8), **settings)
    assert load_weights(mine, path).complete
    x = paddle.randn([2, 3, 64, 96])  # theirs gives the input's size only for multiples of 8
    for training in (False, True):
        mine.train() if training else mine.eval()
        live.train() if training else live.eval()
        ours, theirs = mine(x), live(x)
        assert len(ours) == len(theirs) == (2 if training else 1)
        for a, b in zip(ours, theirs, strict=True):
            scale = float(b.abs().max())
            np.testing.assert_allclose(a.numpy() / scale, b.numpy() / scale, atol=1e-5)


def test_names_and_size_of_paddleseg_r50():
    live = paddleseg_models.DMNet(19, paddleseg_backbones.ResNet50_vd(output_stride=8))
    mine = DMNet(19, ResNet50_vd(output_stride=8))
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (mine, live)]
    assert shapes[0] == shapes[1] and len(shapes[0]) == 339
    assert sum(int(np.prod(p.shape)) for p in mine.parameters() if not p.stop_gradient) == 55_543_686


@pytest.mark.parametrize("settings", [{}, {"filter_sizes": [2, 5], "fusion": True}], ids=["default", "even-fusion"])
def test_everything_learns(settings):
    model = DMNet(5, ResNet18(output_stride=8), mid_channels=16, **settings)
    model.train()
    sum((out * paddle.randn(out.shape)).sum() for out in model(paddle.randn([2, 3, 40, 48]))).backward()
    assert not [n for n, p in model.named_parameters() if not p.stop_gradient and p.grad is None]


@pytest.mark.parametrize("size", [(33, 33), (70, 90), (97, 65)])
def test_output_has_the_size_of_the_input(size):
    model = DMNet(5, ResNet18(output_stride=8), mid_channels=16)
    model.train()
    assert [o.shape for o in model(paddle.randn([2, 3, *size]))] == [[2, 5, *size]] * 2


def test_implementations_agree_in_the_whole_model():
    first = DMNet(5, ResNet18(output_stride=8), mid_channels=16, filter_sizes=(2, 3, 7), dynamic_conv="grouped")
    other = DMNet(5, ResNet18(output_stride=8), mid_channels=16, filter_sizes=(2, 3, 7), dynamic_conv="batch_free")
    other.set_state_dict({k: v.numpy() for k, v in first.state_dict().items()})
    first.eval(), other.eval()
    x = paddle.randn([3, 3, 57, 41])
    with paddle.no_grad():
        a, b = first(x)[0].numpy(), other(x)[0].numpy()
    np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(a).max())


def test_options():
    model = DMNet(5, ResNet18(output_stride=8), mid_channels=16, aux_channels=8, dropout_ratio=0.1, conv_bias=False)
    assert model.fcn_head[0]._conv.weight.shape[0] == 8
    assert model.dcm_modules[0].input_redu_conv._conv.bias is None
    without = DMNet(5, ResNet18(output_stride=8), mid_channels=16, enable_auxiliary_loss=False)
    without.train()
    assert len(without(paddle.randn([2, 3, 40, 40]))) == 1


@pytest.mark.parametrize("settings, message", [
    ({"filter_sizes": []}, "filter_sizes"), ({"filter_sizes": 3}, "filter_sizes"), ({"filter_sizes": [3, 0]}, "positive"),
    ({"filter_sizes": [-1]}, "positive"), ({"init": "torch"}, "init"), ({"dynamic_conv": "x"}, "dynamic_conv"),
])  # fmt: skip
def test_refusals(settings, message):
    with pytest.raises(ConfigError, match=message):
        DMNet(5, ResNet18(output_stride=8), mid_channels=16, **settings)
