# SPDX-License-Identifier: Apache-2.0
"""Exponential moving average of a model's weights and statistics."""

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
        for parameter in self.model.parameters():
            parameter.stop_gradient = True

    @paddle.no_grad()
    def update(self, model: paddle.nn.Layer, step: int) -> None:
        """Takes in the weights after optimizer step number `step`, counted from 1."""
        decay = min(self.decay, 1 - 1 / (step + 1))
        current = model.state_dict()
        for key, average in self.model.state_dict().items():
            value = current[key]
            if paddle.is_floating_point(average):
                value = average * decay + value.astype(average.dtype) * (1 - decay)
            average.set_value(value)
