# SPDX-License-Identifier: Apache-2.0
"""Short trainings in simulated half precision beside the same in float32."""

import contextlib
import math
from dataclasses import dataclass

from paddle_dnl.config.config import Config
from paddle_dnl.data.loading import as_tensors, load_batches, stack_training
from paddle_dnl.gpu.coverage import small_family
from paddle_dnl.gpu.limits import end_of
from paddle_dnl.gpu.rounding import LargestMagnitudes, rounded_like_autocast
from paddle_dnl.training import amp
from paddle_dnl.training.loss_window import all_finite
from paddle_dnl.training.parts import ConfiguredParts
from paddle_dnl.training.sampling import PositionedDataset, PositionSampler, seed_step

import paddle

_SEED = 1


@dataclass
class Curve:
    """One training.

    Args:
        losses: of each step.
        skipped: steps without an update, since a scaled gradient was not finite.
        largest: magnitude of each layer's outputs.
    """

    losses: list[float]
    skipped: int
    largest: dict[str, float]

    @property
    def end(self) -> float:
        """Mean loss of the last fifth of the steps."""
        return end_of(self.losses)

    @property
    def is_finite(self) -> bool:
        """Whether each loss was a number."""
        return all(math.isfinite(loss) for loss in self.losses)


def small_config(family: str, data: str, steps: int, crop: int = 128) -> Config:
    """The quick start's training with the network of a family (ResNet18 or DGMN2-tiny) in place of its own."""
    config, network = Config("dnlnet_resnet18_mini_cityscapes"), small_family(family)
    dic = config.dic | {
        "model": network.dic["model"] | {"num_classes": 19},
        "iters": steps,
        "loss": network.dic["loss"],
    }
    dic["train_dataset"] = dic["train_dataset"] | {"dataset_root": data}
    dic["train_dataset"]["transforms"] = [
        step | ({"crop_size": [crop, crop]} if step["type"] == "RandomPaddingCrop" else {})
        for step in dic["train_dataset"]["transforms"]
    ]
    return Config(dic)


def train_in(config: Config, precision: str) -> Curve:
    """Trains from a fixed seed; `precision` is `fp32`, `fp16` or `bf16`, the latter two simulated (`rounded_like_autocast`).

    float16 has dynamic loss scaling as in training: gradients of the scaled loss pass through float16, an update whose gradients
    are not finite is skipped and halves the factor.
    """
    paddle.seed(_SEED)
    parts = ConfiguredParts(config)
    dataset, _ = parts.datasets(do_eval=False)
    model, losses, schedule, optimizer = parts.network(dataset)
    sampler = PositionSampler(len(dataset), config.batch_size, config.iters, seed=_SEED, rank=0, world_size=1)
    batches = load_batches(PositionedDataset(dataset, _SEED), sampler, stack_training, 0)
    dtype = {"fp16": "float16", "bf16": "bfloat16"}.get(precision)
    scale = amp.FIRST_SCALE if precision == "fp16" else 1.0
    found, skipped, magnitudes = [], 0, LargestMagnitudes(model)
    model.train()
    for step in range(config.iters):
        seed_step(_SEED, step, 0)
        data = as_tensors(next(batches))
        with rounded_like_autocast(dtype) if dtype else contextlib.nullcontext():
            loss = sum(value for _, value in losses(model(data["img"]), data["label"], None, model, data))
        (loss * scale).backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        if all_finite(gradients):
            with paddle.no_grad():
                for gradient in gradients:
                    gradient.scale_(1 / scale)
            optimizer.step()
        else:
            skipped, scale = skipped + 1, scale / 2
        optimizer.clear_grad(set_to_zero=False)
        schedule.step()
        found.append(float(loss))
    batches.close()
    return Curve(found, skipped, magnitudes.stop())
