"""Batch norm and ReLU between two convolutions, computed again in the backward pass instead of kept, on a CPU.

A batch norm's backward pass needs the norm's input, the following convolution's needs the ReLU's result. The second comes
from the first in one cheap pass, so only the first is kept. "In-Place Activated BatchNorm" (Rota Bulo et al., CVPR 2018)
keeps the second and inverts the norm, which rounds; computing again repeats the forward pass to the last bit.
"""

import itertools

from paddle_dnl.nn.cpu.row_strips import (
    Geometry,
    conv2d,
    conv2d_with,
    has_gradients,
    input_gradient,
    is_watched,
    unfolds,
    weight_gradient,
)
from paddle_dnl.nn.layers import ConvBN, relu_of_fresh

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

# Maps below this many bytes are kept: they cost little memory, and each detour costs some calls.
KEPT_LIMIT = 1 << 20


def chain(x: paddle.Tensor, *layers: ConvBN) -> paddle.Tensor:
    """`layers[-1](...layers[0](x))`, without keeping what the ReLUs between them give when training on a CPU.

    Args:
        x: `[B, C, H, W]`.
        layers: all but the last end in a ReLU (`ConvBNReLU`).
    """
    if not (unfolds() and paddle.is_grad_enabled() and _nobody_watches(layers)):
        for layer in layers:
            x = layer(x)
        return x
    y = conv2d(x, layers[0]._conv)
    for before, after in itertools.pairwise(layers):
        y = _norm_relu_conv(y, before._batch_norm, after._conv)
    return layers[-1].finish(y)


def _nobody_watches(layers: tuple[nn.Layer, ...]) -> bool:
    return not any(is_watched(part) for layer in layers for part in layer.sublayers(include_self=True))


def _norm_relu_conv(y: paddle.Tensor, norm: nn.Layer, conv: nn.Conv2D) -> paddle.Tensor:
    geometry = Geometry.of(conv)
    if y.size * 4 < KEPT_LIMIT or not _learns_from_batch(norm) or not has_gradients(geometry):
        return conv2d(relu_of_fresh(norm(y)), conv)
    return _NormReluConv.apply(y, norm.weight, norm.bias, conv.weight, conv.bias, norm, geometry)


def _learns_from_batch(norm: nn.Layer) -> bool:
    """Whether it is the plain layer, normalises by the batch's own statistics, and has weights."""
    plain = type(norm) is nn.BatchNorm2D and norm.training and not norm._use_global_stats
    return plain and norm.weight is not None and norm.bias is not None


class _NormReluConv(PyLayer):
    @staticmethod
    def forward(ctx, y, scale, shift, weight, bias, norm, geometry):
        ctx.save_for_backward(y, scale, shift, weight)
        ctx.geometry, ctx.epsilon = geometry, norm._epsilon
        ctx.wanted = [not tensor.stop_gradient for tensor in (y, scale, shift, weight, bias) if tensor is not None]
        return conv2d_with(F.relu_(norm(y)), weight, bias, geometry)

    @staticmethod
    def backward(ctx, grad):
        y, scale, shift, weight = ctx.saved_tensor()
        inputs = [tensor.detach() for tensor in (y, scale, shift)]
        for tensor, wanted in zip(inputs, ctx.wanted, strict=False):
            tensor.stop_gradient = not wanted
        with paddle.enable_grad():
            activated = _norm_relu(*inputs, ctx.epsilon)
        with paddle.no_grad():
            of_weight = weight_gradient(activated.detach(), weight, grad, ctx.geometry) if ctx.wanted[3] else None
            of_bias = grad.sum(axis=[0, 2, 3]) if any(ctx.wanted[4:]) else None
            of_activated = None if activated.stop_gradient else input_gradient(weight, grad, ctx.geometry)
        if of_activated is not None:
            paddle.autograd.backward([activated], [of_activated])
        # Paddle insists on None for an input that does not learn, and on nothing for one that is None.
        return (*(tensor.grad for tensor in inputs), of_weight, of_bias)[: len(ctx.wanted)]


def _norm_relu(y, scale, shift, epsilon):
    """By the batch's statistics; the running ones were updated in the forward pass."""
    unused = [paddle.zeros_like(scale), paddle.ones_like(scale)]
    return F.relu_(F.batch_norm(y, *unused, scale, shift, training=True, epsilon=epsilon))
