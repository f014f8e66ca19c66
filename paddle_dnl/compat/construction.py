# SPDX-License-Identifier: Apache-2.0
"""Builds models and backbones of PaddleSeg without initial weights, which only the safe reader of this package loads.

Their constructors download and unpickle `pretrained`. Most accept None. Some require a file, which they read in
`init_weight` to resize a position embedding. These are built while the functions that read files are replaced, and
later get their weights from a local file in the same way with the safe reader.
"""

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from unittest import mock

_REQUIRES_FILE = "pretrained_is_read_by_init_weight"


def construct(cls: Callable, arguments: dict):
    """Returns `cls(**arguments)` for a model or backbone of PaddleSeg; `arguments` must not have `pretrained`."""
    parameters = inspect.signature(cls).parameters
    if "pretrained" in parameters and parameters["pretrained"].default is inspect.Parameter.empty:
        arguments = {**arguments, "pretrained": None}
    try:
        return _for_this_device(cls(**arguments))
    except TypeError as error:
        if "not NoneType" not in str(error):  # os.path.exists(None)
            raise
    with _reading_by(lambda path: {}, lambda layer, path: None):
        layer = cls(**{**arguments, "pretrained": ""})
    setattr(layer, _REQUIRES_FILE, True)
    return _for_this_device(layer)


def _for_this_device(layer):
    """On a CPU, replaces `nn.SyncBatchNorm`, which has no CPU kernel, by batch norm with the same tensors.

    Some models use it directly, instead of PaddleSeg's wrapper, which chooses by device.
    """
    paddle = importlib.import_module("paddle")
    if paddle.get_device() != "cpu" or not isinstance(layer, paddle.nn.Layer):
        return layer
    for parent in layer.sublayers(include_self=True):
        for name, norm in parent.named_children():
            if isinstance(norm, paddle.nn.SyncBatchNorm):
                plain = paddle.nn.BatchNorm2D(norm._num_features, norm._momentum, norm._epsilon)
                plain.weight, plain.bias = norm.weight, norm.bias
                plain._mean, plain._variance = norm._mean, norm._variance
                setattr(parent, name, plain)
    return layer


def requires_file(layer) -> bool:
    """Whether the layer's `init_weight` requires a file; `read_into` then loads its initial weights."""
    return getattr(layer, _REQUIRES_FILE, False)


def read_into(layer, path: str, read: Callable[[str], Mapping], load: Callable) -> None:
    """Loads initial weights into a layer whose `init_weight` requires a file, in the same way as its constructor.

    Args:
        layer: a Paddle layer, see `requires_file`.
        path: a local file.
        read: function from a path to a mapping of arrays.
        load: function `load(layer, path)` that copies the matching weights of a file into a layer.
    """
    with _reading_by(read, load):
        layer.pretrained = path
        layer.init_weight()


@contextlib.contextmanager
def _reading_by(read: Callable, load: Callable) -> Iterator[None]:
    """Replaces the readers of PaddleSeg and Paddle during the block."""
    utils = importlib.import_module("paddleseg.utils.utils")
    with (
        mock.patch.object(importlib.import_module("paddle"), "load", read),
        mock.patch.object(utils, "load_pretrained_model", load),
        mock.patch.object(utils, "download_pretrained_model", lambda path: path),
        mock.patch.object(importlib.import_module("paddleseg.utils"), "load_pretrained_model", load, create=True),
    ):
        yield
