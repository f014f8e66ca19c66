# SPDX-License-Identifier: Apache-2.0
"""paddle_dnl: attention-based semantic segmentation on PaddlePaddle (DNLNet, DMNet, DGMN2).

model = paddle_dnl.build_model("configs/dnlnet/dnlnet_resnet50_os8_cityscapes_1024x512_80k.yml")
labels = paddle_dnl.Predictor("output/inference_model").predict(["street.png"])
"""

import zlib  # noqa: F401, I001  must stay first: Paddle 2.6 brings an old zlib that would else take the place of the system's

import importlib

from paddle_dnl.startup import import_guard

__version__ = "0.2.0"

# Public names, imported when first used so that `import paddle_dnl` costs nothing.
_HOME = {
    "Config": "paddle_dnl.config",
    "Predictor": "paddle_dnl.deployment.runtime.predictor",
    "build_model": "paddle_dnl.models.build",
    "convert_state_dict": "paddle_dnl.weights.convert",
    "evaluate": "paddle_dnl.training.api",
    "predict": "paddle_dnl.training.api",
    "train": "paddle_dnl.training.api",
}

__all__ = ["__version__", *_HOME]

import_guard.refuse_shadowed_zlib()


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'paddle_dnl' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOME[name]), name)
    except ImportError as error:
        explained = import_guard.explain(error)
        if explained is None:
            raise
        raise ImportError(explained) from error
