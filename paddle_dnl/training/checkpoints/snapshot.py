# SPDX-License-Identifier: Apache-2.0
"""Copies the state of a training into host memory, so that a thread can write it as a checkpoint."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

from paddle_dnl.errors import NonFiniteError
from paddle_dnl.training.bad_values import bad_names

import paddle


def _on_host(value):
    """A copy in host memory; tensors keep the names under which Paddle writes them."""
    if isinstance(value, paddle.Tensor):
        found = value.detach().clone() if value.place.is_cpu_place() else value.detach().cpu()
        found.name = value.name
        return found
    if isinstance(value, Mapping):
        return {key: _on_host(item) for key, item in value.items()}
    return copy.deepcopy(value)


@dataclass
class Snapshot:
    """Content of a checkpoint, in host memory."""

    model: dict
    optimizer: dict
    optimizer_name: str
    ema: dict | None
    states: dict
    config_text: str


@paddle.no_grad()
def take_snapshot(
    *,
    model: paddle.nn.Layer,
    optimizer,
    states: Mapping,
    ema: paddle.nn.Layer | None = None,
    config_text: str = "",
) -> Snapshot:
    """Copies the state of a training.

    Args:
        model: its `state_dict` is saved.
        optimizer: a Paddle optimizer.
        states: plain values; must hold `iteration`.
        ema: a model that holds the moving average.
        config_text: resolved YAML.

    Raises:
        NonFiniteError: a weight, optimizer slot or average is NaN or infinite.
    """
    weights, state = model.state_dict(), optimizer.state_dict()
    averages = {} if ema is None else ema.state_dict()
    # All tensors with names for an error; a slot's key begins with Paddle's name of its parameter.
    keys = {tensor.name: key for key, tensor in weights.items()}
    named = list(weights.items())
    for slot, tensor in {**state, **state.get("master_weights", {})}.items():
        owner = max((name for name in keys if slot.startswith(name)), key=len, default="")
        named.append((f"optimizer slot {keys.get(owner, '')}{slot[len(owner) :]}", tensor))
    named += [(f"average of {key}", tensor) for key, tensor in averages.items()]
    bad = bad_names((name, tensor) for name, tensor in named if isinstance(tensor, paddle.Tensor))
    if bad:
        raise NonFiniteError(
            f"iter {states['iteration']}: {bad[0]} holds NaN or infinity; this checkpoint was not written"
        )
    return Snapshot(
        model=_on_host(weights),
        optimizer=_on_host(state),
        optimizer_name=type(optimizer).__name__,
        ema=None if ema is None else _on_host(averages),
        states=copy.deepcopy(dict(states)),
        config_text=config_text,
    )
