# SPDX-License-Identifier: Apache-2.0
"""Building models and backbones of PaddleSeg without their start weights, which only our own reader reads.

Their constructors fetch and unpickle `pretrained`. Most accept None; some insist on a file: they read it in `init_weight`, to
resize a position embedding. Those are built with the functions that read files replaced by ones that read nothing, and get
their weights later from a local file, in the same way, by the safe reader.
"""

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from unittest import mock

_INSISTS = "pretrained_is_read_by_init_weight"


def construct(cls: Callable, arguments: dict):
    """`cls(**arguments)` for a model or backbone of PaddleSeg, `pretrained` left out of `arguments`."""
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
    setattr(layer, _INSISTS, True)
    return _for_this_device(layer)


def _for_this_device(layer):
    """Batch norm in place of `nn.SyncBatchNorm` on a CPU, which has no kernel for it; the same parameters and buffers.

    Some models ask for it by name, where PaddleSeg's own wrapper would have chosen by device.
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


def insists(layer) -> bool:
    """Whether a layer's `init_weight` wants a file: then `read_into` reads its start weights."""
    return getattr(layer, _INSISTS, False)


def read_into(layer, path: str, read: Callable[[str], Mapping], load: Callable) -> None:
    """Start weights into a layer that insists on them, as its constructor does.

    Args:
        layer: a Paddle layer, see `insists`.
        path: a local file.
        read: path to mapping of arrays.
        load: puts what fits of a file into a layer: `load(layer, path)`.
    """
    with _reading_by(read, load):
        layer.pretrained = path
        layer.init_weight()


@contextlib.contextmanager
def _reading_by(read: Callable, load: Callable) -> Iterator[None]:
    """PaddleSeg's and Paddle's readers replaced, for as long as one layer is built."""
    utils = importlib.import_module("paddleseg.utils.utils")
    with (
        mock.patch.object(importlib.import_module("paddle"), "load", read),
        mock.patch.object(utils, "load_pretrained_model", load),
        mock.patch.object(utils, "download_pretrained_model", lambda path: path),
        mock.patch.object(importlib.import_module("paddleseg.utils"), "load_pretrained_model", load, create=True),
    ):
        yield
