# SPDX-License-Identifier: Apache-2.0
"""Batches of an evaluation: one rank's share of a dataset, also at several scales."""

import copy
from collections.abc import Iterator, Sequence

from paddle_dnl.errors import DataError
from paddle_dnl.evaluation.options import InferenceOptions

import numpy as np
import paddle


class Share(paddle.io.Dataset):
    """The samples of one rank: every `ranks`-th, so that none is evaluated twice.

    Args:
        dataset: dataset of samples.
        rank, ranks: index of this rank, number of ranks.
        scaled: copies of it with other scales; their samples are added as `pyramid`.
    """

    def __init__(self, dataset, rank: int, ranks: int, scaled: Sequence = ()):
        self.dataset, self.scaled = dataset, scaled
        self.indices = range(rank, len(dataset), ranks)

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, i):
        index = self.indices[i]
        sample = self.dataset[index]
        if self.scaled:
            sample["pyramid"] = [dataset[index] for dataset in self.scaled]
        return sample


def pyramid(compose, options: InferenceOptions) -> list:
    """One `Compose` per scale that resizes the original picture to the scaled size, sides rounded down to whole pixels.

    mmsegmentation and DGMN2 make the scales of the average `softmax` so. Empty for other averages, for the single scale 1, and
    if no transform of `compose` has `at_scale`; scales are then made from the network's input.

    Raises:
        UsageError: a scale at which no pixels are left.
    """
    steps = getattr(compose, "transforms", ())
    fits = any(hasattr(step, "at_scale") for step in steps)
    if not fits or not options.gives_probabilities or options.scales == (1.0,):
        return []
    found = []
    for scale in options.scales:
        scaled = copy.copy(compose)
        scaled.transforms = [step.at_scale(scale) if hasattr(step, "at_scale") else copy.copy(step) for step in steps]
        found.append(scaled)
    return found


def at_scales(dataset, options: InferenceOptions) -> list:
    """One copy of a dataset for each `Compose` of `pyramid`.

    Raises:
        UsageError: see `pyramid`.
    """
    copies = []
    for compose in pyramid(getattr(dataset, "transforms", None), options):
        copies.append(copy.copy(dataset))
        copies[-1].transforms = compose
    return copies


def _stacked_images(samples: list[dict]) -> dict:
    shapes = {sample["img"].shape for sample in samples}
    infos = {repr(sample.get("trans_info", [])) for sample in samples}
    if len(shapes) > 1 or len(infos) > 1:
        raise DataError(f"batch_size {len(samples)}: images of one batch differ in size; evaluate with batch_size 1")
    # PaddlePaddle's default collation would nest `trans_info` once more and turn its numbers into tensors.
    return {"img": np.stack([s["img"] for s in samples]), "trans_info": samples[0].get("trans_info", [])}


def collate(samples: list[dict]) -> dict:
    """A batch: `img [B, C, H, W]`, `trans_info`, `label [B, h, w]` (masks `[B, K, h, w]`); in `pyramid` the first two per scale.

    Raises:
        DataError: images that differ in size.
    """
    batch = _stacked_images(samples)
    labels = [sample["label"] for sample in samples]
    labels = [label if label.ndim == 3 and len(label) > 1 else label.reshape(label.shape[-2:]) for label in labels]
    # uint8 is kept: a quarter of the bytes to pass between processes, and faster to count.
    batch["label"] = np.stack([label if label.dtype == np.uint8 else label.astype(np.int32) for label in labels])
    if "pyramid" in samples[0]:
        levels = zip(*(sample["pyramid"] for sample in samples), strict=True)
        batch["pyramid"] = [_stacked_images(list(level)) for level in levels]
    return batch


class Batches:
    """Lists of `batch_size` consecutive indices; can be iterated several times."""

    def __init__(self, count: int, batch_size: int):
        self.count, self.batch_size = count, batch_size

    def __len__(self):
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, self.count, self.batch_size):
            yield list(range(start, min(start + self.batch_size, self.count)))
