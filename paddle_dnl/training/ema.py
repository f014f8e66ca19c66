# SPDX-License-Identifier: Apache-2.0
"""Exponential moving average (EMA) of a model's weights and statistics."""

import copy

import paddle


class ModelEMA:
    """Keeps `average = d * average + (1 - d) * model` with d = min(decay, 1 - 1 / (step + 1)), as PaddleSeg does.

    Args:
        model: the model in training; parameters and buffers are averaged.
        decay: weight of the past, in [0, 1).
    """

    def __init__(self, model: paddle.nn.Layer, decay: float = 0.999):
        self.decay = decay
        self.model = copy.deepcopy(model)
        self.model.eval()
        self._pairs: list[tuple[paddle.Tensor, paddle.Tensor]] | None = None  # average and what is averaged
        for parameter in self.model.parameters():
            parameter.stop_gradient = True

    @paddle.no_grad()
    def update(self, model: paddle.nn.Layer, step: int) -> None:
        """Updates the average in place after optimizer step `step`, counted from 1; nothing is copied to the host."""
        if self._pairs is None:
            current = model.state_dict()
            self._pairs = [(average, current[key]) for key, average in self.model.state_dict().items()]
        decay = min(self.decay, 1 - 1 / (step + 1))
        for average, value in self._pairs:
            if paddle.is_floating_point(average):
                value = value if value.dtype == average.dtype else value.astype(average.dtype)
                # The same bits as `lerp_`, which takes nearly three times as long on a CPU.
                average.add_((value - average).scale_(1 - decay))
            else:
                average.set_value(value)
