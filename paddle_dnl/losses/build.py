"""The losses of all outputs of a model, from the `loss` section of a configuration."""

from paddle_dnl import registry
from paddle_dnl.errors import ConfigError

import paddle


class Losses:
    """One loss and factor for each output of the model.

    Args:
        losses: callables, one per output.
        coef: their factors.
    """

    def __init__(self, losses: list, coef: list[float]):
        self.losses, self.coef = losses, coef

    def __call__(self, outputs: list[paddle.Tensor], label: paddle.Tensor, edges=None) -> list:
        """Weighted scalars with a name each.

        Args:
            outputs: logits `[B, K, H, W]`, main output first.
            label: `[B, H, W]`, int64.
            edges: `[B, H, W]`, for losses that learn edges (`edge_label`).

        Raises:
            ConfigError: the model has another number of outputs than there are losses.
        """
        if len(outputs) != len(self.losses):
            raise ConfigError(
                f"loss.coef: {len(self.losses)} losses for {len(outputs)} outputs of the model; give one coef per output "
                "(DNLNet and DMNet have an auxiliary output unless enable_auxiliary_loss is false)"
            )
        found = []
        for i, (logits, loss, factor) in enumerate(zip(outputs, self.losses, self.coef, strict=True)):
            truth = edges if getattr(loss, "edge_label", False) and edges is not None else label
            value = loss(logits, truth)
            name = f"{type(loss).__name__}_{i}"
            if isinstance(value, list):
                found += [(f"{name}.{j}", factor * part) for j, part in enumerate(value)]
            else:
                found.append((name, factor * value))
        return found


def build_losses(cfg: dict) -> Losses:
    """Builds `{"types": [...], "coef": [...]}`; a single type serves all outputs.

    Raises:
        ConfigError: unknown loss or argument, or numbers of types and coef that do not fit.
    """
    types, coef = cfg["types"], cfg["coef"]
    if len(types) == 1:
        types = list(types) * len(coef)
    if len(types) != len(coef):
        raise ConfigError(f"loss.types: {len(types)} losses for {len(coef)} coef; give one, or one per coef")
    return Losses([registry.build(item, "loss", f"loss.types.{i}") for i, item in enumerate(types)], list(coef))
