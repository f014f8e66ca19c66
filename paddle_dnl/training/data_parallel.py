# SPDX-License-Identifier: Apache-2.0
"""Data-parallel training: gradients are averaged over processes during the backward pass.

Paddle must know whether a loss may leave parameters without a gradient. If so (`find_unused_parameters`), it
traverses the graph before each backward pass; if not, it waits for the gradient of every parameter. Here one forward and
backward pass of a copy of the model decides.
"""

import copy

from paddle_dnl.data.loading import as_tensors, stack_training
from paddle_dnl.distributed import collectives
from paddle_dnl.errors import ConfigError
from paddle_dnl.log import logger
from paddle_dnl.training import amp
from paddle_dnl.training.sampling import PositionedDataset

import paddle

KEY = "find_unused_parameters"
_SHOWN = 3


def unused_parameters(model: paddle.nn.Layer, backward) -> list[str]:
    """Names of the trainable parameters that get no gradient in at least one process.

    Args:
        model: is copied, so that its batch statistics do not change.
        backward: called with the copy; computes the losses of a batch and their gradients.
    """
    trial = copy.deepcopy(model)
    trial.train()
    for parameter in trial.parameters():
        parameter.clear_gradient(False)  # to None; `Layer.clear_gradients` of Paddle 2.6 leaves zeros
    backward(trial)
    mine = [name for name, p in trial.named_parameters() if not p.stop_gradient and p.grad is None]
    return sorted(set().union(*collectives.all_gather_object(mine, "the first gradients")))


class _Parallel(paddle.DataParallel):
    def forward(self, *inputs, **kwargs):
        try:
            return super().forward(*inputs, **kwargs)
        except RuntimeError as error:
            if KEY not in str(error):
                raise
            raise ConfigError(
                f"a parameter had no gradient in the last step although all had one at the start; set `{KEY}: true` in the "
                "configuration"
            ) from error


def data_parallel(forward: paddle.nn.Layer, trainer) -> paddle.DataParallel:
    """Wraps a model in `paddle.DataParallel`.

    Args:
        forward: the model, or its static graph.
        trainer: a `Trainer` with model, data, losses and precision.
    """
    find = trainer.config.dic.get(KEY, "auto")
    if find == "auto":
        dataset = PositionedDataset(trainer.train_dataset, trainer.seed)
        batch = as_tensors(stack_training([dataset[item] for item in trainer.sampler.batch(0)]))

        def backward(model):
            with amp.autocast(trainer.precision, trainer.options.amp_level):
                losses = trainer.losses(model(batch["img"]), batch["label"], batch.get("edge"), model, batch)
                loss = sum(value for _, value in losses)
            loss.backward()

        unused = unused_parameters(trainer.model, backward)
        if unused:
            more = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
            logger.info(f"{KEY} is on: the losses do not use {', '.join(unused[:_SHOWN])}{more}")
        find = bool(unused)
    collectives.barrier("the first step")
    return _Parallel(forward, find_unused_parameters=find)
