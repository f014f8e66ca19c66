# SPDX-License-Identifier: Apache-2.0
"""Captures the inputs of layers during one forward pass by temporary hooks."""

import contextlib
from collections.abc import Callable

from paddle_dnl.errors import UsageError
from paddle_dnl.evaluation.inference import evaluating

import paddle


def layers_of(model: paddle.nn.Layer, kind: type) -> dict[str, paddle.nn.Layer]:
    """Name -> layer for all layers of a class, in the order of the model."""
    return {name: layer for name, layer in model.named_sublayers(include_self=True) if isinstance(layer, kind)}


def layers_with_inputs(
    model: paddle.nn.Layer, image: paddle.Tensor, kind: type, lacking: str, run: Callable | None = None
) -> list[tuple]:
    """(name, layer, its positional inputs) for all layers of a class, of one pass as by `capture_inputs`.

    Args:
        model, image, run: see `capture_inputs`.
        kind: the class.
        lacking: for the error.

    Raises:
        UsageError: the model has none, with `lacking` behind its name; or as `capture_inputs`.
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
    """Runs the model once, in evaluation mode, and returns name -> positional inputs of the named layers.

    Args:
        model: maps images to a list of logits; its layers are left in the modes they were in.
        image: `[1, 3, H, W]`, prepared as for the model.
        layers: as from `layers_of`.
        run: makes the pass of `image` in place of `model`, for instance to keep what it returns.

    Raises:
        UsageError: a batch, or a layer that the pass does not reach.
    """
    if image.shape[0] != 1:
        raise UsageError(f"attention is looked at one image at a time, got a batch of {image.shape[0]}")
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
