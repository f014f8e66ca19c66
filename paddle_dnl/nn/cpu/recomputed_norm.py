# SPDX-License-Identifier: Apache-2.0
"""Batch norm and ReLU between two convolutions, recomputed in the backward pass on a CPU instead of stored.

The backward pass of a batch norm needs the norm's input, that of the following convolution the ReLU's output. The second
follows from the first in one cheap pass, so only the first is stored. "In-Place Activated BatchNorm" (Rota Bulo et al.,
CVPR 2018) stores the second and inverts the norm, which rounds; recomputing repeats the forward pass bit for bit.
"""

import itertools

from paddle_dnl.nn.cpu.row_strips import (
    Geometry,
    conv2d,
    eager_on_cpu,
    has_gradients,
    input_gradient,
    is_watched,
    weight_gradient,
)
from paddle_dnl.nn.layers import ConvBN, relu_inplace

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

# Smaller maps (bytes) are stored: they cost little memory, and recomputing costs extra calls.
KEPT_LIMIT = 1 << 20


class ConvChain(nn.Layer):
    """`layers[-1](...layers[0](x))`; training on a CPU, the outputs of the ReLUs in between are recomputed, not stored.

    The chain owns no parameters: its layers stay registered where they were, under their own names. Where forward hooks
    are registered on any of them, they are simply called one after another.

    Args:
        layers: all but the last end in a ReLU (`ConvBNReLU`).
    """

    def __init__(self, *layers: ConvBN):
        super().__init__()
        self.chained = list(layers)  # a plain list, which Paddle does not register

    def forward(self, x):
        if eager_on_cpu() and paddle.is_grad_enabled() and not self._has_hooks():
            y = self.chained[0]._conv(x)
            for before, after in itertools.pairwise(self.chained):
                y = _norm_relu_conv(y, before._batch_norm, after._conv)
            return self.chained[-1].finish(y)
        for layer in self.chained:
            x = layer(x)
        return x

    def _has_hooks(self) -> bool:
        """A function of its own: Paddle's to_static does not translate a comprehension over `layer` beside the loop above."""
        return any(is_watched(part) for layer in self.chained for part in layer.sublayers(include_self=True))


def _norm_relu_conv(y: paddle.Tensor, norm: nn.Layer, conv: nn.Conv2D) -> paddle.Tensor:
    """conv(relu(norm(y))), keeping `y` alone for the backward pass where that is worth it."""
    geometry = Geometry.of(conv)
    uses_batch = type(norm) is nn.BatchNorm2D and norm.training and not norm._use_global_stats
    is_affine = norm.weight is not None and norm.bias is not None
    if y.size * 4 < KEPT_LIMIT or not (uses_batch and is_affine) or not has_gradients(geometry):
        return conv(relu_inplace(norm(y)))
    return _NormReluConv.apply(y, norm.weight, norm.bias, conv.weight, conv.bias, norm, geometry)


class _NormReluConv(PyLayer):
    @staticmethod
    def forward(ctx, y, scale, shift, weight, bias, norm, geometry):
        ctx.save_for_backward(y, scale, shift, weight)
        ctx.geometry, ctx.epsilon = geometry, norm._epsilon
        ctx.wanted = [not tensor.stop_gradient for tensor in (y, scale, shift, weight, bias) if tensor is not None]
        return conv2d(F.relu_(norm(y)), weight, bias, geometry)

    @staticmethod
    def backward(ctx, grad):
        y, scale, shift, weight = ctx.saved_tensor()
        inputs = [tensor.detach() for tensor in (y, scale, shift)]
        for tensor, wanted in zip(inputs, ctx.wanted, strict=False):
            tensor.stop_gradient = not wanted
        with paddle.enable_grad():
            # By the statistics of the batch; the running statistics were updated in the forward pass.
            unused = [paddle.zeros_like(scale), paddle.ones_like(scale)]
            normalised = F.batch_norm(inputs[0], *unused, *inputs[1:], training=True, epsilon=ctx.epsilon)
            activated = F.relu_(normalised)
        with paddle.no_grad():
            of_weight = weight_gradient(activated.detach(), weight, grad, ctx.geometry) if ctx.wanted[3] else None
            of_bias = grad.sum(axis=[0, 2, 3]) if any(ctx.wanted[4:]) else None
            of_activated = None if activated.stop_gradient else input_gradient(weight, grad, ctx.geometry)
        if of_activated is not None:
            paddle.autograd.backward([activated], [of_activated])
        # Paddle requires None for an input without gradient, and no entry for an input that was None.
        return (*(tensor.grad for tensor in inputs), of_weight, of_bias)[: len(ctx.wanted)]
