# SPDX-License-Identifier: Apache-2.0
"""Sample order and augmentation as pure functions of the position in the run."""

import random

from paddle_dnl.errors import DataError
from paddle_dnl.training.sampling import PositionedDataset, PositionSampler

import numpy as np
import paddle
import pytest


def _collect(**kwargs):
    return list(PositionSampler(23, seed=3, steps=12, **kwargs))


def test_resume_goes_on_where_it_was():
    assert _collect(batch_size=4)[7:] == _collect(batch_size=4, first_step=7)


def test_each_epoch_shows_each_image_at_most_once_in_another_order():
    steps = _collect(batch_size=4)
    first, second = (sum(steps[i : i + 5], []) for i in (0, 5))
    assert len({index for index, _ in first}) == 20 and [i for i, _ in first] != [i for i, _ in second]
    assert [position for _, position in sum(steps, [])] == list(range(48))


def test_two_ranks_share_the_joint_batch():
    ranks = [_collect(batch_size=2, rank=r, world_size=2) for r in (0, 1)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == _collect(batch_size=4)


def test_too_few_images():
    with pytest.raises(DataError, match="3 images.*takes 4"):
        PositionSampler(3, 2, 10, seed=0, world_size=2)


class _Noise(paddle.io.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"img": np.float32([index, random.random(), np.random.rand()])}


@pytest.mark.parametrize("workers", [0, 2])
def test_random_numbers_depend_on_the_position_only(workers):
    def run(first_step):
        sampler = PositionSampler(8, 2, 6, seed=1, first_step=first_step)
        data = PositionedDataset(_Noise(), 1)
        loader = paddle.io.DataLoader(data, batch_sampler=sampler, num_workers=workers)
        return [batch["img"].numpy() for batch in loader]

    random.seed(workers)
    np.random.seed(workers)
    whole, rest = run(0), run(4)
    np.testing.assert_array_equal(whole[4:], rest)
    assert len({row.tobytes() for batch in whole for row in batch}) == 12
    expected = [PositionedDataset(_Noise(), 1)[item]["img"] for item in list(PositionSampler(8, 2, 6, seed=1))[2]]
    np.testing.assert_array_equal(whole[2], expected)


def test_reading_a_sample_disturbs_nothing():
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    PositionedDataset(_Noise(), 1)[(0, 0)]
    assert np.random.rand() == expected
