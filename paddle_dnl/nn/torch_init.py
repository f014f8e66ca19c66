# SPDX-License-Identifier: Apache-2.0
"""Initial values that networks published in PyTorch start from; Paddle's own defaults differ.

Paddle's default for a convolution is a normal distribution with variance 2/fan_in and a zero bias.
"""

import math

import paddle
from paddle import nn


def _fill(parameter, initializer: nn.initializer.Initializer) -> None:
    initializer(parameter)


def init_conv_like_torch(conv: nn.Conv2D) -> None:
    """PyTorch's default of a convolution: weight and bias uniform in +-1/sqrt(fan_in)."""
    fan_in = math.prod(conv.weight.shape[1:])
    bound = 1 / math.sqrt(fan_in)
    _fill(conv.weight, nn.initializer.Uniform(-bound, bound))
    if conv.bias is not None:
        _fill(conv.bias, nn.initializer.Uniform(-bound, bound))


def init_conv_module(conv: nn.Conv2D) -> None:
    """OpenMMLab's `ConvModule`: weight normal with variance 2/fan_out, bias zero."""
    out_channels, _, kernel_height, kernel_width = conv.weight.shape
    std = math.sqrt(2 / (out_channels * kernel_height * kernel_width))
    init_normal(conv, std)


def init_normal(layer: nn.Layer, std: float) -> None:
    """Weight normal with the given standard deviation, bias zero."""
    _fill(layer.weight, nn.initializer.Normal(0.0, std))
    if layer.bias is not None:
        _fill(layer.bias, nn.initializer.Constant(0.0))


def normal_parameter(layer: nn.Layer, shape: list[int], std: float) -> paddle.Tensor:
    """A new trainable parameter of `layer` drawn from N(0, std^2)."""
    return layer.create_parameter(shape, default_initializer=nn.initializer.Normal(0.0, std))
