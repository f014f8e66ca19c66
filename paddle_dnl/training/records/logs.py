# SPDX-License-Identifier: Apache-2.0
"""Training log: lines in PaddleSeg's format, scalars and images under its tags."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from paddle_dnl.distributed import collectives
from paddle_dnl.log import logger
from paddle_dnl.training.records.loggers import LoggerGroup
from paddle_dnl.training.records.run_records import RunRecords

import numpy as np
import paddle


def format_seconds(seconds: float) -> str:
    """`HH:MM:SS` of a duration in seconds."""
    seconds = int(seconds)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def gpu_memory() -> str:
    """Peak GPU memory in MiB in the format of PaddleSeg's log lines; empty on other devices."""
    if not paddle.get_device().startswith("gpu"):  # also for a GPU build of Paddle on a CPU
        return ""
    cuda = paddle.device.cuda
    reserved, allocated = cuda.max_memory_reserved() // 2**20, cuda.max_memory_allocated() // 2**20
    return f", max_mem_reserved: {reserved} MB, max_mem_allocated: {allocated} MB"


class TrainLog:
    """Averages losses and times between log lines, writes the lines, and passes scalars to the chosen loggers.

    Args:
        iters: length of the run.
        log_iters: steps between lines.
        steps_per_epoch: for the `epoch:` field.
        batch_size: images per step of this process, for the `ips:` field.
        save_dir: the run's folder.
        loggers: names of `paddle_dnl.training.records.loggers`.
        first_iteration: first iteration to log.
        config: the resolved configuration, which some loggers store.
        is_main: whether to write files (loggers, `RunRecords`); default: on rank 0.
        print_mem_info: add `gpu_memory` to the lines.
    """

    def __init__(
        self,
        *,
        iters,
        log_iters,
        steps_per_epoch,
        batch_size,
        save_dir: Path,
        loggers: tuple[str, ...] = (),
        first_iteration: int = 1,
        config: dict | None = None,
        is_main: bool | None = None,
        print_mem_info: bool = True,
    ):
        self.iters, self.log_iters, self.batch_size = iters, log_iters, batch_size
        self.print_mem_info = print_mem_info
        is_main = collectives.is_main() if is_main is None else is_main
        self.steps_per_epoch = steps_per_epoch
        self.records = RunRecords(save_dir) if is_main else None
        self.loggers = LoggerGroup(loggers if is_main else (), save_dir, first_iteration, config)
        self._reset()

    def _reset(self) -> None:
        self._losses: dict[str, float] = defaultdict(float)
        self._count = 0
        self._reader_seconds = 0.0
        self._since = time.perf_counter()

    def pause(self) -> None:
        """Stops the clock, for instance during an evaluation."""
        self._paused_at = time.perf_counter()

    def resume(self) -> None:
        """Starts the clock again."""
        self._since += time.perf_counter() - self._paused_at

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Counts the time in the block as waiting for data."""
        began = time.perf_counter()
        yield
        self._reader_seconds += time.perf_counter() - began

    def is_due(self, iteration: int) -> bool:
        """Whether a line is due after this step."""
        return iteration % self.log_iters == 0 or iteration == self.iters

    def add(self, losses: dict[str, float], steps: int) -> None:
        """Adds the mean losses of some steps."""
        for name, value in losses.items():
            self._losses[name] += value * steps
        self._count += steps

    def line_if_due(self, iteration: int, lr: float) -> None:
        """Writes a line and its scalars if one is due."""
        if not self.is_due(iteration):
            return
        seconds = max(time.perf_counter() - self._since, 1e-9) / self._count
        reader = self._reader_seconds / self._count
        means = {name: total / self._count for name, total in self._losses.items()}
        loss = sum(means.values())
        epoch = (iteration - 1) // self.steps_per_epoch + 1
        memory = gpu_memory() if self.print_mem_info else ""
        logger.info(
            f"[TRAIN] epoch: {epoch}, iter: {iteration}/{self.iters}, loss: {loss:.4f}, lr: {lr:.6f}, "
            f"batch_cost: {seconds:.4f}, reader_cost: {reader:.5f}, ips: {self.batch_size / seconds:.4f} samples/sec"
            f"{memory} | ETA {format_seconds((self.iters - iteration) * seconds)}"
        )
        scalars = {"Train/loss": loss, "Train/lr": lr, "Train/batch_cost": seconds, "Train/reader_cost": reader}
        if len(means) > 1:
            scalars |= {f"Train/loss_{i}": value for i, value in enumerate(means.values())}
        self.scalars(scalars, iteration)
        self._reset()

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        """Writes scalars into scalars.csv and to the loggers."""
        if self.records is not None:
            self.records.scalars(values, iteration)
        self.loggers.scalars(values, iteration)

    def image(self, tag: str, rgb: np.ndarray, iteration: int) -> None:
        """Passes an image, uint8 `[H, W, 3]`, to the loggers."""
        self.loggers.image(tag, rgb, iteration)

    def close(self) -> None:
        """Flushes and closes the files."""
        if self.records is not None:
            self.records.close()
        self.loggers.close()
