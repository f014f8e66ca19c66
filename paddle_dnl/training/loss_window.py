# SPDX-License-Identifier: Apache-2.0
"""Losses and flags of the steps since the last log line, kept on the device and read in one transfer.

A read waits until the device has done all that was queued, so that a GPU idles until the host has queued more.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from paddle_dnl.distributed import collectives

import numpy as np
import paddle
import paddle.distributed as dist
from paddle import _C_ops

_READ_SECONDS = 5.0  # a request to stop and non-finite losses are noticed within about this time


def all_finite(tensors: Iterable[paddle.Tensor]) -> paddle.Tensor:
    """1 if all tensors are finite, else 0: `[1]` float64 on the device, by the fused operation of loss scaling with scale 1.

    Args:
        tensors: integer tensors count as finite.
    """
    kinds: dict = {}
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.size:
            kinds.setdefault(tensor.dtype, []).append(tensor)
    bad = paddle.zeros([1], "float64")
    for same in kinds.values():
        scale = paddle.ones([1], "float64" if same[0].dtype == paddle.float64 else "float32")
        bad += _C_ops.check_finite_and_unscale_(same, scale)[-1].astype("float64")
    return 1.0 - bad.clip(max=1.0)


@dataclass(frozen=True)
class Found:
    """Result of one read; equal on all ranks.

    Attributes:
        losses: name -> mean over the steps since the last read and over ranks.
        steps: number of these steps.
        finite_gradients: whether those of the last step are finite, on all ranks.
        stop: whether a rank was asked to stop.
    """

    losses: dict[str, float]
    steps: int
    finite_gradients: bool
    stop: bool


class LossWindow:
    """Losses of the steps since the last read.

    Args:
        accumulate: micro-batches per step; the loss of a step is their mean.
    """

    def __init__(self, accumulate: int):
        self.accumulate = accumulate
        self.names: list[str] = []
        self.read_every = 1  # steps; agreed on by all ranks
        self._clear()

    def _clear(self) -> None:
        self._losses: list[paddle.Tensor] = []
        self._since = time.monotonic()

    @property
    def steps(self) -> int:
        """Steps since the last read."""
        return len(self._losses) // self.accumulate

    def add(self, losses: list[tuple[str, paddle.Tensor]]) -> None:
        """Adds the losses of one micro-batch without copying them to the host."""
        self.names = [name for name, _ in losses]
        values = [loss.detach().astype("float32").reshape([]) for _, loss in losses]
        self._losses.append(paddle.stack(values))

    @paddle.no_grad()
    def read(self, finite_gradients: paddle.Tensor, asked_to_stop: bool) -> Found:
        """One all-reduce and one copy to the host; clears the window unless a loss is not finite."""
        steps, seconds = self.steps, time.monotonic() - self._since
        of_losses = paddle.stack(self._losses).astype("float64").sum(0) / (steps * self.accumulate)
        own = paddle.to_tensor([float(asked_to_stop), seconds / steps], dtype="float64")
        together = paddle.concat([of_losses, 1.0 - finite_gradients, own])
        if collectives.world_size() > 1:
            dist.all_reduce(together)
        *sums, bad, stop, pace = together.numpy().tolist()
        ranks = collectives.world_size()
        self.read_every = max(1, int(_READ_SECONDS / max(pace / ranks, 1e-6)))
        means = {name: total / ranks for name, total in zip(self.names, sums, strict=True)}
        if np.isfinite(sums).all():
            self._clear()
        return Found(means, steps, bad == 0, stop > 0)

    def first_bad(self) -> tuple[int, dict[str, float]] | None:
        """Index of the first micro-batch since the last read with a loss of this rank that is not finite, and its losses."""
        for index, values in enumerate(paddle.stack(self._losses).numpy()) if self._losses else ():
            if not np.isfinite(values).all():
                return index, dict(zip(self.names, values.astype(float), strict=True))
        return None
