"""Networks built alike on both sides: `ours` from paddle_dnl, `peer` from paddleseg."""


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
