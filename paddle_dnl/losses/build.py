# SPDX-License-Identifier: Apache-2.0
"""The losses of all outputs of a model, from the `loss` section of a configuration."""

from paddle_dnl import registry
from paddle_dnl.errors import ConfigError
from paddle_dnl.losses import foreign

import paddle

_HALF = (paddle.float16, paddle.bfloat16)


def _in_float32(outputs: list) -> list:
    """Outputs of half precision, also inside tuples and mappings, in float32."""

    def convert(value):
        return value.astype("float32") if isinstance(value, paddle.Tensor) and value.dtype in _HALF else value

    return paddle.utils.map_structure(convert, list(outputs))


class Losses:
    """One loss and factor for each output of the model.

    Args:
        losses: callables, one per output.
        coef: their factors.
    """

    def __init__(self, losses: list, coef: list[float]):
        self.losses, self.coef = losses, coef

    def __call__(self, outputs: list, label: paddle.Tensor, edges=None, model=None, data=None) -> list:
        """Weighted scalars with a name each.

        Args:
            outputs: logits `[B, K, H, W]`, main output first; some models of PaddleSeg give what their losses take: tuples
                or mappings of tensors.
            label: `[B, H, W]`, int64.
            edges: `[B, H, W]`, for losses that learn edges (`edge_label`).
            model: one that computes its losses itself has `loss_computation(outputs, {"types": losses, "coef": factors}, data)`,
                which gives a list of scalars, factors applied.
            data: the batch as tensors, for that.

        Raises:
            ConfigError: the model has another number of outputs than there are losses; a loss on edges without them.
        """
        hook = getattr(model, "loss_computation", None)
        if hook is not None:
            with paddle.amp.auto_cast(enable=False):
                values = hook(_in_float32(outputs), {"types": self.losses, "coef": self.coef}, data)
            return [(f"loss_{i}", value.reshape([])) for i, value in enumerate(values)]
        if len(outputs) != len(self.losses):
            raise ConfigError(
                f"loss.types, loss.coef: {len(self.losses)} losses for {len(outputs)} outputs of the model; "
                "give one coef for each (DNLNet and DMNet have an auxiliary one unless enable_auxiliary_loss is false)"
            )
        outputs = _in_float32(outputs)
        found = []
        # Autocast must not bring half precision back inside a loss.
        with paddle.amp.auto_cast(enable=False):
            for i, (loss, factor) in enumerate(zip(self.losses, self.coef, strict=True)):
                kind = type(loss).__name__
                name = f"{kind}_{i}"
                if getattr(loss, "edge_label", False):
                    if edges is None:
                        raise ConfigError(f"loss.types.{i}: {kind} learns edges; set train_dataset.edge: true")
                    value = loss(outputs[i], edges)
                elif kind == "KLLoss":  # between two outputs; PaddleSeg, too, tells it by its class
                    value = loss(outputs[0], outputs[1].detach())
                else:
                    value = foreign.call(loss, outputs[i], label, f"loss.types.{i}")
                if isinstance(value, list | tuple):
                    found += [(f"{name}.{j}", factor * part.reshape([])) for j, part in enumerate(value)]
                else:
                    found.append((name, factor * value.reshape([])))
        return found


def build_losses(cfg: dict) -> Losses:
    """Builds `{"types": [...], "coef": [...]}`; a single type serves all outputs.

    Raises:
        ConfigError: unknown loss or argument, or numbers of types and coef that do not fit.
    """
    types, coef = cfg.get("types"), cfg.get("coef")
    if not types or not coef:
        raise ConfigError(f"loss: needs `types` and `coef`, both lists, got {cfg!r}")
    if len(types) == 1:
        types = list(types) * len(coef)
    if len(types) != len(coef):
        raise ConfigError(f"loss.types: {len(types)} losses for {len(coef)} coef; give one, or one per coef")
    return Losses([registry.build(item, "loss", f"loss.types.{i}") for i, item in enumerate(types)], list(coef))
