# SPDX-License-Identifier: Apache-2.0
"""DNLNet against the live PaddleSeg model, and what ours does that theirs cannot."""

import paddle_dnl
from paddle_dnl import registry
from paddle_dnl.errors import CheckpointError, ConfigError
from paddle_dnl.models.backbones.resnet import ResNet18, ResNet50_vd
from paddle_dnl.models.dnlnet import DNLNet
from paddle_dnl.weights.loading import load_weights

import numpy as np
import paddle
import paddleseg.models as paddleseg_models
import pytest
from paddleseg.models import backbones as paddleseg_backbones


def _live(**settings):
    return paddleseg_models.DNLNet(num_classes=5, backbone=paddleseg_backbones.ResNet50_vd(output_stride=8), **settings)


def _mine(**settings):
    return DNLNet(num_classes=5, backbone=ResNet50_vd(output_stride=8), **settings)


def _small(**settings):
    return DNLNet(num_classes=5, backbone=ResNet18(output_stride=8), **settings)


@pytest.mark.parametrize(
    "settings", [{}, {"align_corners": True, "mode": "dot_product"}], ids=["default", "dot-product"]
)
def test_same_weights_same_logits_as_paddleseg(tmp_path, settings):
    live = _live(**settings)
    path = tmp_path / "model.pdparams"
    paddle.save(live.state_dict(), str(path))
    mine = _mine(**settings)
    report = load_weights(mine, path)  # strict: refuses on any missing or unexpected key
    assert report.complete and len(report.loaded) == len(live.state_dict()) == 312
    x = paddle.randn([2, 3, 65, 97])
    for training in (False, True):
        for model in (mine, live):
            model.train() if training else model.eval()
            for layer in model.sublayers():
                if isinstance(layer, paddle.nn.Dropout2D):
                    layer.p = 0.0
        ours, theirs = mine(x), live(x)
        assert len(ours) == (2 if training else 1) and len(theirs) == 2  # in evaluation too
        for a, b in zip(ours, theirs, strict=False):
            scale = float(b.abs().max())
            np.testing.assert_allclose(a.numpy() / scale, b.numpy() / scale, atol=1e-5)


@pytest.mark.parametrize("dialect", ["paddleseg", "mmseg", "official"])
@pytest.mark.parametrize("size", [(33, 33), (64, 47), (65, 70)])
def test_any_size(dialect, size):
    model = _small(dialect=dialect)
    model.eval()
    (logits,) = model(paddle.randn([2, 3, *size]))
    assert logits.shape == [2, 5, *size]


@pytest.mark.parametrize("mode", ["embedded_gaussian", "gaussian", "dot_product", "concatenation"])
@pytest.mark.parametrize("sub_sample", [False, True])
def test_all_modes_learn(mode, sub_sample):
    """Gradients reach every trainable parameter; PaddleSeg's gaussian and sub_sample cannot even run."""
    model = _small(mode=mode, sub_sample=sub_sample)
    model.train()
    outputs = model(paddle.randn([1, 3, 48, 64]))
    assert len(outputs) == 2
    sum((o * paddle.randn(o.shape)).sum() for o in outputs).backward()
    dead = [n for n, p in model.named_parameters() if not p.stop_gradient and p.grad is None]
    assert not dead


def test_auxiliary_head():
    without = _small(enable_auxiliary_loss=False)
    without.train()
    assert len(without(paddle.randn([1, 3, 33, 33]))) == 1
    assert _small().head.aux[0]._conv.weight.shape[:2] == [256, 256]
    assert _small(dialect="official").head.aux[0]._conv.weight.shape[:2] == [512, 256]


def test_dialects_differ():
    """The same weights give other logits: the published block has no ReLU behind its output convolution."""
    first, second = _small(dialect="paddleseg"), _small(dialect="mmseg")
    second.set_state_dict({k: v.numpy() for k, v in first.state_dict().items()})
    first.eval(), second.eval()
    x = paddle.randn([1, 3, 64, 64])
    assert float((first(x)[0] - second(x)[0]).abs().max()) > 1e-3


def test_parameter_counts_of_the_published_models():
    def count(model):
        return sum(int(np.prod(p.shape)) for p in model.parameters() if not p.stop_gradient)

    model = registry.build(
        {"type": "DNLNet", "num_classes": 19, "dialect": "mmseg", "backbone": {"type": "ResNet50", "stem": "v1c"}},
        "model",
    )
    assert count(model) == 50_024_327
    model = registry.build({"type": "DNLNet", "num_classes": 19, "backbone": {"type": "ResNet101_vd"}}, "model")
    assert count(model) == 69_016_455


def test_build_model_from_dict_never_downloads(tmp_path):
    cfg = {
        "type": "DNLNet",
        "num_classes": 5,
        "pretrained": "https://example.invalid/model.pdparams",
        "backbone": {"type": "ResNet18", "pretrained": "https://example.invalid/backbone.pdparams"},
    }
    model = paddle_dnl.build_model(cfg)
    path = tmp_path / "m.pdparams"
    paddle.save(model.state_dict(), str(path))
    again = paddle_dnl.build_model(cfg, pretrained=path)
    model.eval(), again.eval()
    x = paddle.randn([1, 3, 40, 40])
    np.testing.assert_array_equal(model(x)[0].numpy(), again(x)[0].numpy())
    with pytest.raises(CheckpointError, match="missing.*unexpected|mis-shaped"):
        paddle_dnl.build_model({**cfg, "num_classes": 7}, pretrained=path)


def test_refusals():
    with pytest.raises(ValueError, match="dialect"):
        _small(dialect="torch")
    headless = paddle.nn.Layer()  # as a ResNet of PaddleSeg for other models
    with pytest.raises(ConfigError, match="Layer does not name the channels of its feature maps"):
        DNLNet(5, headless)
    with pytest.raises(
        ConfigError, match=r"\[2, 9\] do not fit the 4 feature maps of .*ResNet.*; give indices from 0 to 3"
    ):
        _small(backbone_indices=(2, 9))
    with pytest.raises(ValueError, match="backbone_indices"):
        _small(backbone_indices=(3,))
