# SPDX-License-Identifier: Apache-2.0
"""Batches from data loading processes: the same bits as from this process, with one thread of OpenCV in each."""

import tiny_training  # noqa: F401,I001  imports paddle_dnl before paddle
from paddle_dnl.data.loading import load_batches

import cv2
import numpy as np
import paddle
import pytest


class _Resized(paddle.io.Dataset):
    """Pictures large enough for OpenCV to share out their rows, and how many threads it has for that."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        noise = np.random.default_rng(index).uniform(0, 255, (300, 400, 3)).astype(np.float32)
        image = cv2.cvtColor(cv2.GaussianBlur(cv2.resize(noise, (900, 700)), (5, 5), 1.5), cv2.COLOR_RGB2HSV)
        return {"img": image, "threads": cv2.getNumThreads()}


def _stack(samples):
    return {key: np.stack([np.asarray(sample[key]) for sample in samples]) for key in ("img", "threads")}


@pytest.fixture
def four_threads():
    """OpenCV has its threads in this process, whatever the machine, and they run when the workers are forked."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    cv2.resize(np.zeros((1000, 1000, 3), np.float32), (3000, 3000))
    yield
    cv2.setNumThreads(before)


@pytest.mark.usefixtures("four_threads")
def test_workers_use_one_thread_of_opencv_and_give_the_same_bits():
    order = [[0, 1], [2, 3], [5, 4]]
    batches = {workers: list(load_batches(_Resized(), order, _stack, num_workers=workers)) for workers in (0, 2)}
    assert len(batches[0]) == len(batches[2]) == 3
    for here, there in zip(batches[0], batches[2], strict=True):
        assert np.asarray(here["threads"]).tolist() == [4, 4] and np.asarray(there["threads"]).tolist() == [1, 1]
        np.testing.assert_array_equal(np.asarray(here["img"]), np.asarray(there["img"]))
    assert cv2.getNumThreads() == 4
