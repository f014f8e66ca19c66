# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulate operations of one forward pass, counted from shapes.

Counted: convolutions, linear layers, the matrix products of the attention blocks, dynamic convolutions and bilinear
sampling (four per sampled value). Not counted: biases, norms, activations, softmax, pooling, resizing and sums.
"""

import math
from collections.abc import Callable

from paddle_dnl.errors import ExportError, PaddleDnlError, UsageError
from paddle_dnl.nn.deformable_unfold import SAMPLES, DeformableUnfold
from paddle_dnl.nn.dgmn2_attention import DGMN2Attention
from paddle_dnl.nn.disentangled_nonlocal import DisentangledNonLocal2D
from paddle_dnl.nn.dynamic_filter import DynamicFilter

import paddle
from paddle import nn

# Neighbours of a point between four pixels.
_BILINEAR = 4


def _disentangled_nonlocal(layer: DisentangledNonLocal2D, inputs, output) -> int:
    """Pairwise and unary products; the projections are convolutions and are counted as such."""
    batch, channels, height, width = inputs[0].shape
    queries = height * width
    keys = queries if layer.pool is None else (height // 2) * (width // 2)
    values = layer.g.weight.shape[0]
    count = keys * values if layer.unary and layer.combine == "add" else 0
    if layer.pairwise:
        inner = channels if layer.mode == "gaussian" else layer.theta.weight.shape[0]
        if layer.unary and layer.unary_key == "shared":  # mean query times keys
            count += keys * inner
        if layer.combine == "multiply":  # the unary logits are one more channel
            inner += 1
        if layer.mode == "dot_product":  # q (k^T v): no product of positions with positions
            count += (queries + keys) * inner * values
        elif layer.mode == "concatenation":  # one number per query and per key; their outer sum times the values
            count += (queries + keys) * inner + queries * keys * values
        else:
            count += queries * keys * (inner + values)
    return batch * count


def _dgmn2_attention(layer: DGMN2Attention, inputs, output) -> int:
    """Projections written as matrix products (q, k, v, output), logits and sum over samples, two position terms."""
    batch, tokens, dim = inputs[0].shape
    projections = 4 * dim
    attention = 2 * SAMPLES
    position = 2 * SAMPLES
    return batch * tokens * dim * (projections + attention + position)


# By class: what a call of the layer costs beyond the calls of its own sublayers.
_COUNTERS: dict[type, Callable] = {
    nn.Conv2D: lambda layer, inputs, output: math.prod(output.shape) * math.prod(layer.weight.shape[1:]),
    nn.Conv2DTranspose: lambda layer, inputs, output: math.prod(inputs[0].shape) * math.prod(layer.weight.shape[1:]),
    nn.Linear: lambda layer, inputs, output: math.prod(output.shape) * layer.weight.shape[0],
    DisentangledNonLocal2D: _disentangled_nonlocal,
    # The depthwise convolution with the filters that were made.
    DynamicFilter: lambda layer, inputs, output: math.prod(output.shape) * layer.filter_size**2,
    DGMN2Attention: _dgmn2_attention,
    DeformableUnfold: lambda layer, inputs, output: _BILINEAR * math.prod(inputs[0].shape) * SAMPLES,
}


class _Traced(nn.Layer):
    """The model one level down, so that `to_static` does not replace the `forward` of the caller's model."""

    def __init__(self, model: nn.Layer):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


def _trace(model: nn.Layer, shape: list[int]) -> None:
    """Calls every layer with symbolic tensors of the real shapes; nothing is computed."""
    spec = paddle.static.InputSpec(shape, "float32", name="x")
    wrapper = _Traced(model)
    wrapper.eval()
    try:
        paddle.jit.to_static(wrapper, input_spec=[spec], full_graph=True).forward.concrete_program  # noqa: B018
    except PaddleDnlError:
        raise
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else repr(error)
        raise ExportError(f"{type(model).__name__}: cannot trace an input of shape {shape}: {reason}") from error


def count_macs(model: nn.Layer, input_shape: list[int] | tuple[int, ...]) -> int:
    """Multiply-accumulate operations of one forward pass in evaluation mode, for the whole batch.

    The model is traced with shapes alone, so that a large input costs no more time or memory than a small one. What is
    counted and what is not: see the module. Auxiliary heads do not run in evaluation and do not count.

    Args:
        model: maps one tensor to anything; its mode (training or evaluation) is as before afterwards.
        input_shape: shape of that tensor, for images `[B, 3, H, W]`.

    Raises:
        UsageError: a shape with something else than positive integers, or with another number of channels than the model's.
        ExportError: the model cannot be traced with that shape.
    """
    shape = list(input_shape)
    if not shape or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in shape):
        raise UsageError(f"input_shape {shape}: expected positive integers, for instance 1 3 512 1024")
    total, refused = 0, []

    def add(layer, inputs, output):
        nonlocal total
        if isinstance(layer, nn.Conv2D) and layer._data_format == "NCHW" and inputs[0].shape[1] != layer._in_channels:
            refused.append((layer._in_channels, inputs[0].shape[1]))  # Paddle would put an exception into its own words
        total += next(_COUNTERS[kind] for kind in type(layer).__mro__ if kind in _COUNTERS)(layer, inputs, output)

    layers = model.sublayers(include_self=True)
    modes = [(layer.training, layer.__dict__.get("forward")) for layer in layers]
    hooks = [layer.register_forward_post_hook(add) for layer in layers if isinstance(layer, tuple(_COUNTERS))]
    try:
        _trace(model, shape)
    finally:
        for hook in hooks:
            hook.remove()
        for layer, (training, forward) in zip(layers, modes, strict=True):
            layer.training = training
            if forward is None:  # tracing may leave its own version in the object
                layer.__dict__.pop("forward", None)
    if refused:
        raise UsageError(
            f"input_shape {shape}: a convolution of {type(model).__name__} takes {refused[0][0]} channels and gets "
            f"{refused[0][1]}; give the number of channels of the model's images"
        )
    return total


def count_parameters(model: nn.Layer) -> int:
    """Trainable numbers of a model, those of auxiliary heads included; running statistics are not among them."""
    return sum(math.prod(p.shape) for p in model.parameters() if not p.stop_gradient)
