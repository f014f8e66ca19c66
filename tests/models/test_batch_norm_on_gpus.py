# SPDX-License-Identifier: Apache-2.0
"""On a GPU build every batch normalisation of the published networks is synchronised, as in the published runs; on a CPU none is.

Only the layers are looked at: there is no GPU where these tests run.
"""

from paddle_dnl.config import Config
from paddle_dnl.models.build import build_model

import paddle
import pytest
from paddle import nn

PLAIN = (nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D)
_SHALLOW = ["model.backbone.type=ResNet18"]
CONFIGS = {
    "dnl_r50-d8_512x1024_40k_cityscapes": [],
    "dmnet_r50-d8_512x1024_40k_cityscapes": _SHALLOW,
    "dnlnet_resnet50_os8_cityscapes_1024x512_80k": [],
    "dnl_nowd_ln_resnet101_pascal_context59_520x520_30k": _SHALLOW,
    "fpn_dgmn2_tiny_cityscapes_769x769_40k": [],
    "setr_naive_dgmn2_tiny_cityscapes_769x769_40k": [],
    "setr_pup_dgmn2_tiny_cityscapes_769x769_40k": [],
    "setr_mla_dgmn2_tiny_cityscapes_769x769_40k": [],
}


def norms(model, kinds) -> set[str]:
    return {name for name, layer in model.named_sublayers() if isinstance(layer, kinds)}


@pytest.mark.parametrize("name", CONFIGS)
def test_batch_normalisation_is_synchronised_on_gpus(name, monkeypatch):
    config = Config(name, opts=CONFIGS[name])
    on_cpu = build_model(config)
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    on_gpu = build_model(config)
    assert not norms(on_gpu, PLAIN) and not norms(on_cpu, nn.SyncBatchNorm)
    assert norms(on_gpu, nn.SyncBatchNorm) == norms(on_cpu, PLAIN) != set()
    assert on_gpu.state_dict().keys() == on_cpu.state_dict().keys()
