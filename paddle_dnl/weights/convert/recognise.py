# SPDX-License-Identifier: Apache-2.0
"""Recognises the source of backbone weights by names and the shape of the first convolution."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Recognised:
    """A file of backbone weights.

    Args:
        source: one of `SOURCES`.
        stem: of a ResNet, see `paddle_dnl.models.backbones.resnet`; None if names and shapes do not decide.
    """

    source: str
    stem: str | None = None


def recognise(state: Mapping[str, np.ndarray]) -> Recognised | None:
    """The source of backbone weights; None for unknown names.

    Args:
        state: tensors with keys relative to the backbone.
    """
    kernel = next((np.shape(state[key]) for key in ("conv1.weight", "prefix.conv1.weight") if key in state), ())
    if "patch_embed1.conv1.weight" in state:
        return Recognised("dgmn2")
    if "blocks.0.conv0.conv.weight" in state:
        return Recognised("paddleclas", "vd" if "stem.1.conv.weight" in state else "v1")
    if "stem.0.weight" in state:
        return Recognised("mmseg", "v1c")
    if "conv1.0.weight" in state:
        return Recognised("timm", "vd")
    if len(kernel) == 4 and kernel[2] == 7:
        return Recognised("torchvision", "v1")
    if len(kernel) == 4 and kernel[2] == 3:
        return Recognised("official_dnl", "3x3")
    if "conv1_1._conv.weight" not in state:
        return None
    shape = np.shape(state["conv1_1._conv.weight"])
    if len(shape) == 4 and shape[2] == 7:
        return Recognised("paddleseg", "v1")
    if shape[:1] == (64,):
        return Recognised("paddleseg", "3x3")
    # `vd` and `v1c` have equal names and shapes; a classifier is only in files of PaddleSeg and PaddleClas, which are `vd`.
    return Recognised("paddleseg", "vd" if any(key.startswith(("fc.", "out.")) for key in state) else None)
