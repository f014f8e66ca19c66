# SPDX-License-Identifier: Apache-2.0
"""Captures the inputs of layers during one forward pass with temporary hooks."""

import contextlib
from collections.abc import Callable

from paddle_dnl.errors import UsageError
from paddle_dnl.evaluation.inference import evaluating

import paddle


def layers_of(model: paddle.nn.Layer, kind: type) -> dict[str, paddle.nn.Layer]:
    """Returns name -> layer for all layers of a class, in the order of the model."""
    return {name: layer for name, layer in model.named_sublayers(include_self=True) if isinstance(layer, kind)}


def layers_with_inputs(
    model: paddle.nn.Layer, image: paddle.Tensor, kind: type, lacking: str, run: Callable | None = None
) -> list[tuple]:
    """Returns (name, layer, positional inputs) for all layers of a class, from one pass as in `capture_inputs`.

    Args:
        model, image, run: see `capture_inputs`.
        kind: class of the layers.
        lacking: text for the error message, after the name of the model.

    Raises:
        UsageError: the model has no such layers; or see `capture_inputs`.
    """
    layers = layers_of(model, kind)
    if not layers:
        raise UsageError(f"{type(model).__name__} {lacking}")
    inputs = capture_inputs(model, image, layers, run)
    return [(name, layer, inputs[name]) for name, layer in layers.items()]


@paddle.no_grad()
def capture_inputs(
    model: paddle.nn.Layer,
    image: paddle.Tensor,
    layers: dict[str, paddle.nn.Layer],
    run: Callable[[paddle.Tensor], object] | None = None,
) -> dict:
    """Runs the model once in evaluation mode, and returns name -> positional inputs of the given layers.

    Args:
        model: maps images to a list of logits; the modes of its layers are restored.
        image: `[1, 3, H, W]`, preprocessed for the model.
        layers: see `layers_of`.
        run: runs `image` instead of `model`, for example to keep the output.

    Raises:
        UsageError: a batch of several images, or a layer that the pass does not reach.
    """
    if image.shape[0] != 1:
        raise UsageError(f"attention is analyzed one image at a time, got a batch of {image.shape[0]}")
    found: dict[str, tuple] = {}

    def keep(name):
        return lambda layer, inputs: found.update({name: inputs})

    with contextlib.ExitStack() as stack:
        stack.enter_context(evaluating(model))
        for name, layer in layers.items():
            stack.callback(layer.register_forward_pre_hook(keep(name)).remove)
        (run or model)(image)
    missing = sorted(set(layers) - set(found))
    if missing:
        raise UsageError(f"{type(model).__name__} did not use {', '.join(missing)} in this pass")
    return found
