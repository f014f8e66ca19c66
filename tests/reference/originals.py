# SPDX-License-Identifier: Apache-2.0
"""Imports of the original implementations where a usual installation of them lacks compiled operations."""

import functools
import sys
import types
from pathlib import Path

import torch


@functools.cache
def import_torchvision():
    """torchvision; one from a package index finds no compiled operators beside a CPU build of PyTorch, and ResNets need none."""
    try:
        import torchvision
    except RuntimeError:
        operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
        import torchvision

        torchvision.defined_operators = operators  # they end with this object
    return torchvision


@functools.cache
def import_mmseg():
    """mmsegmentation on mmcv-lite, which lacks the compiled operations; DNL uses none of them."""

    def missing(name):
        if name.startswith("__"):
            raise AttributeError(name)

        def fail(*_, **__):
            raise RuntimeError(f"mmcv.ops.{name} is not part of mmcv-lite")

        return fail

    operations = types.ModuleType("mmcv.ops")
    operations.__getattr__ = missing
    sys.modules["mmcv.ops"] = operations
    import_torchvision()  # one of mmsegmentation's backbones imports timm, which imports it
    import mmseg
    import mmseg.models  # noqa: F401

    return mmseg


def mmseg_configs() -> Path:
    """Folder of mmsegmentation's own configuration files."""
    return Path(import_mmseg().__file__).parent / ".mim" / "configs"
