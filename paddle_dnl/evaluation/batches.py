# SPDX-License-Identifier: Apache-2.0
"""Batches of an evaluation: one rank's share of a dataset, also at several scales."""

import copy
from collections.abc import Iterator, Sequence

from paddle_dnl.errors import DataError
from paddle_dnl.evaluation.options import InferenceOptions

import numpy as np
import paddle


class Share(paddle.io.Dataset):
    """The images of one rank: every `ranks`-th, so that no image is read twice.

    Args:
        dataset: of samples.
        rank, ranks: this rank, and how many there are.
        scaled: the same with pictures of other scales; their images are added as `pyramid`.
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
    """Transforms that fit the original picture to a scaled frame, one `Compose` for each scale, sides cut to whole pixels.

    So mmsegmentation and DGMN2 make their scales, which they average by `softmax`. Empty where another rule is asked for,
    for the single scale 1, and where no transform of `compose` can fit another frame (`ResizeToFit.at_scale`): scales are
    then made of the network's input.

    Raises:
        UsageError: a scale that leaves nothing of the frame.
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
    """Copies of a dataset whose pictures are of the scales that `pyramid` gives; empty where it gives none.

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
    # One level less than PaddlePaddle's own collation makes: plain numbers, not tensors.
    return {"img": np.stack([s["img"] for s in samples]), "trans_info": samples[0].get("trans_info", [])}


def _as_stored(label: np.ndarray) -> np.ndarray:
    """`[h, w]`, or several masks `[K, h, w]`; 8 bits stay, a quarter to pass between processes and faster to count."""
    label = label if label.ndim == 3 and len(label) > 1 else label.reshape(label.shape[-2:])
    return label if label.dtype == np.uint8 else label.astype(np.int32)


def collate(samples: list[dict]) -> dict:
    """One batch: `img [B, C, H, W]`, `trans_info`, `label [B, h, w]`, and `pyramid`, the first two for each scale.

    Raises:
        DataError: images that differ in size.
    """
    batch = _stacked_images(samples)
    batch["label"] = np.stack([_as_stored(sample["label"]) for sample in samples])
    if "pyramid" in samples[0]:
        levels = zip(*(sample["pyramid"] for sample in samples), strict=True)
        batch["pyramid"] = [_stacked_images(list(level)) for level in levels]
    return batch


class Batches:
    """Consecutive indices in lists of `batch_size`; can be gone through again."""

    def __init__(self, count: int, batch_size: int):
        self.count, self.batch_size = count, batch_size

    def __len__(self):
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, self.count, self.batch_size):
            yield list(range(start, min(start + self.batch_size, self.count)))
