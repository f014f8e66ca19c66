# SPDX-License-Identifier: Apache-2.0
"""Networks built alike on both sides, `ours` from paddle_dnl and `peer` from paddleseg, with the same weights."""

from collections.abc import Callable


def alike(make: Callable, side: str):
    """`make(side)` with the weights that `make("ours")` draws; both sides build both, so that neither starts with more memory.

    Raises:
        SystemExit: the sides do not have the same weights.
    """
    import paddle

    paddle.seed(0)
    weights = make("ours").state_dict()
    model = make(side)
    missing, unexpected = model.set_state_dict(weights)
    if missing or unexpected:
        raise SystemExit(f"the two sides differ in {[*missing, *unexpected]}")
    return model


def dnlnet_r50(side: str):
    """DNLNet-R50, 19 classes, output stride 8."""
    if side == "ours":
        from paddle_dnl.models.backbones.resnet import ResNet50_vd
        from paddle_dnl.models.dnlnet import DNLNet
    else:
        from paddleseg.models import DNLNet
        from paddleseg.models.backbones import ResNet50_vd
    return DNLNet(num_classes=19, backbone=ResNet50_vd(output_stride=8))


def dmnet_r50(side: str):
    """DMNet-R50, 19 classes, output stride 8."""
    if side == "ours":
        from paddle_dnl.models.backbones.resnet import ResNet50_vd
        from paddle_dnl.models.dmnet import DMNet
    else:
        from paddleseg.models import DMNet
        from paddleseg.models.backbones import ResNet50_vd
    return DMNet(num_classes=19, backbone=ResNet50_vd(output_stride=8))
