# SPDX-License-Identifier: Apache-2.0
"""Without workers a thread reads ahead, and neither it nor the training spoils the other's random numbers."""

import random
import threading

from paddle_dnl.data.datasets import Dataset
from paddle_dnl.data.loading import as_tensors, load_batches, stack_training
from paddle_dnl.data.transforms import (
    Normalize,
    RandomDistort,
    RandomHorizontalFlip,
    RandomPaddingCrop,
    ResizeStepScaling,
)
from paddle_dnl.training.sampling import PositionedDataset, PositionSampler

import cv2
import numpy as np
import paddle
import pytest

STEPS = 12


class Shift:
    """A user's transform."""

    def __call__(self, data):
        data["img"] = data["img"] + np.random.uniform() + random.random()
        return data


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"{i}.png"), rng.integers(0, 255, (40, 50, 3)).astype(np.uint8))
        cv2.imwrite(str(tmp_path / f"{i}_label.png"), rng.integers(0, 3, (40, 50)).astype(np.uint8))
    (tmp_path / "train.txt").write_text("".join(f"{i}.png {i}_label.png\n" for i in range(6)))
    return tmp_path


def _dataset(folder, *more):
    transforms = [
        ResizeStepScaling(), RandomPaddingCrop((32, 32)), RandomHorizontalFlip(), RandomDistort(), *more, Normalize(),
    ]  # fmt: skip
    dataset = Dataset("train", str(folder), transforms, 3, train_path=str(folder / "train.txt"))
    return PositionedDataset(dataset, seed=5)


def _load(dataset, **options):
    return load_batches(dataset, PositionSampler(6, 2, STEPS, seed=5), stack_training, **options)


def test_batches_are_the_same_and_so_are_the_process_draws(folder):
    """Though the process draws in the middle of a sample, between its seeding and its transforms."""
    expected = list(_load(_dataset(folder)))
    dataset, inside, drawn = _dataset(folder), threading.Event(), threading.Event()
    load, calls = type(dataset.dataset).__getitem__, []

    class Interrupted(type(dataset.dataset)):
        def __getitem__(self, index):
            calls.append(index)
            if len(calls) > 2:  # not of the first batch, for which the training waits
                inside.set()
                assert drawn.wait(20)
            return load(self, index)

    dataset.dataset.__class__ = Interrupted
    random.seed(1), np.random.seed(1)
    wanted = [(random.random(), np.random.uniform()) for _ in range(3)]
    random.seed(1), np.random.seed(1)
    batches = _load(dataset, read_ahead=dataset.may_read_ahead)
    found = [next(batches)]
    assert inside.wait(20)
    assert [(random.random(), np.random.uniform()) for _ in range(3)] == wanted
    drawn.set()
    found += list(batches)
    for ours, theirs in zip(found, expected, strict=True):
        for key, value in theirs.items():
            np.testing.assert_array_equal(ours[key], value)


def test_the_generators_of_a_thread_give_what_the_process_would(folder):
    """So that checkpoints of older versions go on with the same samples."""
    own, process = _dataset(folder), _dataset(folder)
    process.may_read_ahead = False
    for position in range(20):
        for key, value in process[position % 6, position].items():
            np.testing.assert_array_equal(own[position % 6, position][key], value)


def test_what_draws_from_the_process_is_read_where_it_is_used(folder, monkeypatch):
    dataset, threads = _dataset(folder, Shift()), set()
    assert not dataset.may_read_ahead
    monkeypatch.setattr(Shift, "__call__", lambda self, data: threads.add(threading.current_thread()) or data)
    list(_load(dataset, read_ahead=dataset.may_read_ahead))
    assert threads == {threading.main_thread()}


def test_the_next_batches_are_read_during_a_step(folder):
    """Two of them, and not more; a training that stops early waits for none that was not begun."""
    dataset, read, more = _dataset(folder), [], threading.Event()
    load = type(dataset.dataset).__getitem__

    class Noting(type(dataset.dataset)):
        def __getitem__(self, index):
            read.append(index)
            if len(read) == 6:
                more.set()
            return load(self, index)

    dataset.dataset.__class__ = Noting
    batches = _load(dataset, read_ahead=True)
    next(batches)
    assert more.wait(20), "nothing was read during a step"
    batches.close()
    assert len(read) == 6


@pytest.mark.filterwarnings("error:To copy construct")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_arrays_become_tensors_once(folder, monkeypatch, num_workers):
    """Those of workers are tensors when they come."""
    made, to_tensor = [], paddle.to_tensor
    batch = next(iter(_load(_dataset(folder), num_workers=num_workers)))
    monkeypatch.setattr(paddle, "to_tensor", lambda value: made.append(value) or to_tensor(value))
    tensors = as_tensors(batch)
    assert len(made) == (0 if num_workers else 2)
    assert tensors["img"].shape == [2, 3, 32, 32] and tensors["label"].dtype == paddle.int64


def test_a_gpu_copies_from_page_locked_memory_and_is_not_waited_for(monkeypatch):
    """By stand-ins for Paddle's functions, as no GPU is here: what is called, not what it does."""
    calls, make = [], paddle.to_tensor

    class Locked:
        def __init__(self, array):
            self.array = array

        def cuda(self, blocking=True):
            calls.append(("copied", self.array.dtype.name, blocking))
            return make(self.array)

    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(paddle, "CUDAPinnedPlace", lambda: "page-locked")
    monkeypatch.setattr(paddle, "to_tensor", lambda array, place=None: calls.append(place) or Locked(array))
    there = make(np.ones((2, 2), np.float32))
    batch = as_tensors({"img": np.ones((1, 3, 2, 2), np.float32), "label": np.ones((1, 2, 2), np.uint8), "more": there})
    assert calls == ["page-locked", ("copied", "float32", False), "page-locked", ("copied", "uint8", False)]
    assert batch["label"].dtype == paddle.int64 and batch["more"] is there
