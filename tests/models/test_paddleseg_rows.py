# SPDX-License-Identifier: Apache-2.0
"""Every published row of PaddleSeg and DMNet_paddle: the configuration's model against the live paddleseg model.

The live model is built as PaddleSeg's own YAML of that name builds it. Its weights, with batch statistics that are not
those of a fresh model, go the way of a downloaded file: through the converter and `build_model(pretrained=...)`.
"""

from pathlib import Path

from paddle_dnl.models.build import build_model
from paddle_dnl.weights.convert import convert_with_report

import numpy as np
import paddle
import paddleseg.models as paddleseg_models
import pytest
from paddleseg.models import backbones as paddleseg_backbones

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# configuration: (source, PaddleSeg's model, depth, classes, number of tensors)
ROWS = {
    "dnlnet/dnlnet_resnet50_os8_cityscapes_1024x512_80k": ("paddleseg", "DNLNet", 50, 19, 312),
    "dnlnet/dnlnet_resnet101_os8_cityscapes_1024x512_80k": ("paddleseg", "DNLNet", 101, 19, 567),
    "dnlnet/dnlnet_resnet50_os8_voc12aug_512x512_40k": ("paddleseg", "DNLNet", 50, 21, 312),
    "dnlnet/dnlnet_resnet101_os8_voc12aug_512x512_40k": ("paddleseg", "DNLNet", 101, 21, 567),
    "dmnet/dmnet_resnet101_os8_cityscapes_1024x512_80k": ("paddleseg", "DMNet", 101, 19, 594),
    "dmnet/dmnet_cityscapes_1024x512_100k": ("dmnet_paddle", "DMNet", 101, 19, 594),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_same_logits_as_the_live_model(name, tmp_path):
    source, kind, depth, classes, tensors = ROWS[name]
    backbone = getattr(paddleseg_backbones, f"ResNet{depth}_vd")(output_stride=8)
    live = getattr(paddleseg_models, kind)(num_classes=classes, backbone=backbone)
    with paddle.no_grad():
        live(paddle.randn([2, 3, 64, 64]))  # in training mode: moves the batch statistics
    config = CONFIGS / f"{name}.yml"
    state = {key: value.numpy() for key, value in live.state_dict().items()}
    converted, report = convert_with_report(state, source, build_model(config))
    assert len(report.mapped) == len(state) == tensors
    assert not (report.dropped or report.kept or report.filled or report.warnings)
    path = tmp_path / "model.pdparams"
    paddle.save({key: paddle.to_tensor(value) for key, value in converted.items()}, str(path))
    mine = build_model(config, pretrained=path)
    mine.eval(), live.eval()
    image = paddle.randn([1, 3, 64, 96])  # theirs gives DMNet's input size only for multiples of 8
    with paddle.no_grad():
        (ours,), theirs = mine(image), live(image)[0]
    assert ours.shape == theirs.shape == [1, classes, 64, 96]
    scale = float(theirs.abs().max())
    np.testing.assert_allclose(ours.numpy() / scale, theirs.numpy() / scale, atol=1e-5)
    assert (ours.argmax(1) == theirs.argmax(1)).all()
