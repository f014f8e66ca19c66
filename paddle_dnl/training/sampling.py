# SPDX-License-Identifier: Apache-2.0
"""Sampling: samples and random numbers of a step as a pure function of seed and position.

Nothing here has state: the order of an epoch comes from (seed, epoch), and the augmentation of a sample from (seed,
its position in the run). So a resumed run continues with exactly the same samples, the number of worker processes has no
influence, and N ranks with B images each see what one process with N x B images sees.
"""

import hashlib
import os
from collections.abc import Iterator

from paddle_dnl.data.transforms.randomness import own_generators, process_generators, uses_own_generators
from paddle_dnl.errors import DataError

import numpy as np
import paddle


class PositionSampler:
    """Yields one list of `(index, position)` per micro-batch of this rank, from `first_step` to the end of the run.

    Args:
        num_samples: size of the dataset.
        batch_size: images per rank and micro-batch.
        steps: number of micro-batches of the whole run, counted from 0.
        seed: of the order.
        rank, world_size: which share of each batch this process gets.
        first_step: micro-batches that earlier runs have done.

    Raises:
        DataError: fewer images than one step over all ranks needs.
    """

    def __init__(self, num_samples: int, batch_size: int, steps: int, *, seed: int, rank=0, world_size=1, first_step=0):
        self.num_samples, self.batch_size, self.steps, self.seed = num_samples, batch_size, steps, seed
        self.rank, self.world_size, self.first_step = rank, world_size, first_step
        self.global_batch = batch_size * world_size
        # Incomplete batches at the end of an epoch are dropped, as PaddleSeg does.
        self.steps_per_epoch = num_samples // self.global_batch
        if self.steps_per_epoch == 0:
            raise DataError(
                f"train_dataset has {num_samples} images, but one step takes {self.global_batch} "
                f"(batch_size {batch_size} x {world_size} processes); give a smaller --batch_size"
            )

    def order(self, epoch: int) -> np.ndarray:
        """The permutation of all samples in one epoch."""
        return np.random.default_rng((self.seed, epoch)).permutation(self.num_samples)

    def batch(self, step: int, order: np.ndarray | None = None) -> list[tuple[int, int]]:
        """The micro-batch `step`; pass the `order` of its epoch where it is known."""
        if order is None:
            order = self.order(step // self.steps_per_epoch)
        start = (step % self.steps_per_epoch) * self.global_batch + self.rank * self.batch_size
        position = step * self.global_batch + self.rank * self.batch_size
        return [(int(order[start + i]), position + i) for i in range(self.batch_size)]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, order = -1, None
        for step in range(self.first_step, self.steps):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = self.order(epoch)
            yield self.batch(step, order)

    def __len__(self) -> int:
        return self.steps - self.first_step


class PositionedDataset(paddle.io.Dataset):
    """A dataset whose item `(index, position)` is augmented with random numbers that depend on seed and position only.

    Ours draw from generators of their thread, so that another thread may read samples ahead. Where a dataset or a transform is
    of PaddleSeg or the user's, `random` and `numpy.random` are set before each sample and put back after it.

    Attributes:
        may_read_ahead: whether a thread may read samples while others draw random numbers.

    Raises:
        DataError: the image of a sample holds NaN or infinity. A ReLU may hide them from the loss, while they stay in the
            batch statistics.
    """

    def __init__(self, dataset: paddle.io.Dataset, seed: int):
        super().__init__()
        self.dataset, self.seed = dataset, seed
        self.may_read_ahead = uses_own_generators(dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: tuple[int, int]):
        index, position = item
        words = np.random.SeedSequence((self.seed, position)).generate_state(4)
        with own_generators(words) if self.may_read_ahead else process_generators(words):
            sample = self.dataset[index % len(self.dataset)]  # --repeats counts indices further
        if not np.isfinite(np.sum(sample["img"])):
            name = sample_names(self.dataset, [item])[0]
            raise DataError(
                f"{name}: the network's input made from it holds NaN or infinity (train_dataset.transforms)"
            )
        return sample


def sample_names(dataset, batch: list[tuple[int, int]]) -> list[str]:
    """Names of the samples of a batch for messages: file names if the dataset has them, else indices."""
    files = getattr(dataset, "file_list", None)
    if files:
        return [str(files[index % len(files)][0]) for index, _ in batch]
    return [f"sample {index % len(dataset)}" for index, _ in batch]


def dataset_fingerprint(dataset) -> str:
    """Digest of the file names of a dataset in their order, relative to its root folder."""
    digest = hashlib.sha256(f"{type(dataset).__name__} {len(dataset)}".encode())
    root = str(getattr(dataset, "dataset_root", "") or "")
    inside = os.path.join(os.path.normpath(root), "") if root else "/"
    for pair in getattr(dataset, "file_list", None) or ():
        for path in filter(None, pair):
            name = str(path)
            if root and name.startswith(root):
                name = name[len(inside) :] if name.startswith(inside) else os.path.relpath(name, root)
            digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()[:16]


def seed_step(seed: int, iteration: int, rank: int) -> None:
    """Sets Paddle's generator (dropout, drop-path) for one step, different on each rank."""
    paddle.seed(int(np.random.SeedSequence((seed, iteration, rank)).generate_state(1)[0]))
