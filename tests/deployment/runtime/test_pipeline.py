# SPDX-License-Identifier: Apache-2.0
"""The pipeline: order, overlap, bounded memory, and failures that end it."""

import threading
import time
from pathlib import Path

from paddle_dnl.deployment.runtime.pipeline import Picture, read_ahead, run_pipeline
from paddle_dnl.errors import DataError

import numpy as np
import pytest


class Clockwork:
    """Stands in for a Predictor: a picture holds its number; each step takes a given time without using a core."""

    def __init__(self, read=0.0, run=0.0):
        self.read_seconds, self.run_seconds = read, run
        self.batches, self.live, self.most_live = [], 0, 0
        self.lock = threading.Lock()
        self.image_format = self

    def open(self, path):
        time.sleep(self.read_seconds)
        with self.lock:
            self.live += 1
            self.most_live = max(self.most_live, self.live)
        if path.name == "bad":
            raise DataError(f"{path}: no picture")
        return np.full((1, 2, 3), int(path.name))

    def of_array(self, pixels, name):
        return pixels

    def prepare(self, pixels, name):
        return pixels[..., 0], [name]

    def run_each(self, tensors, with_scores=False):
        time.sleep(self.run_seconds * len(tensors))
        self.batches.append([int(t[0, 0]) for t in tensors])
        return [t * 10 for t in tensors]

    def postprocess(self, output, info):
        with self.lock:
            self.live -= 1
        return output


def _pictures(count):
    return [Picture(f"no. {i}", Path(str(i)), Path(f"{i}.png")) for i in range(count)]


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_every_picture_once_in_order(batch):
    backend, found = Clockwork(), []
    timing = run_pipeline(
        backend, _pictures(20), lambda p, pixels, label, _: found.append((p.title, pixels[0, 0, 0], label[0, 0])),
        batch_size=batch, writers=1,
    )  # fmt: skip
    assert found == [(f"no. {i}", i, 10 * i) for i in range(20)]
    assert sum(backend.batches, []) == list(range(20)) and max(map(len, backend.batches)) == min(batch, 20)
    assert timing.pictures == 20 and timing.rate == pytest.approx(20 / timing.seconds)
    assert run_pipeline(backend, [], None).pictures == 0


def test_arrays_need_no_reading():
    found = []
    pictures = [Picture("frame", np.full((1, 2, 3), 4), Path("x"))]
    run_pipeline(Clockwork(), pictures, lambda p, pixels, label, _: found.append(label[0, 0]))
    assert found == [40]


def test_reading_and_writing_cost_no_time_beside_the_backend():
    """One after the other would take three times the backend's own 1.2 s."""
    backend = Clockwork(read=0.03, run=0.03)
    timing = run_pipeline(backend, _pictures(40), lambda *_: time.sleep(0.03))
    assert timing.backend_seconds >= 1.2
    assert timing.backend_seconds / timing.seconds >= 0.9


@pytest.mark.parametrize("slow", ["backend", "writer"])
def test_the_number_of_pictures_in_memory_is_bounded(slow):
    backend = Clockwork(run=0.01 if slow == "backend" else 0)
    run_pipeline(backend, _pictures(100), lambda *_: time.sleep(0.02 if slow == "writer" else 0), batch_size=2)
    # Two windows of 2 * 2 + 2 pictures, the batch that runs, and one in each thread.
    assert backend.most_live <= 2 * 6 + 2 + 4


@pytest.mark.parametrize("where", ["read", "run", "write", "source"])
def test_a_failure_ends_it(where, monkeypatch):
    backend, written = Clockwork(), []

    def write(picture, pixels, label, probabilities):
        if where == "write" and picture.title == "no. 5":
            raise OSError(28, "No space left on device")
        written.append(picture.title)

    def source():
        for i, picture in enumerate(_pictures(1000)):
            if i == 5 and where == "read":
                picture.source = Path("bad")
            if i == 5 and where == "source":
                raise DataError("the film is torn: no picture")
            yield picture

    if where == "run":
        backend.run_each = lambda tensors, with_scores: (_ for _ in ()).throw(DataError("the backend: no picture"))
    kind, text = (OSError, "No space") if where == "write" else (DataError, "no picture")
    threads = threading.active_count()
    with pytest.raises(kind, match=text):
        run_pipeline(backend, source(), write)
    if where == "source":
        assert sorted(written) == [f"no. {i}" for i in range(5)], "what came before is finished"
    assert len(written) < 50 and threading.active_count() == threads


def test_read_ahead():
    seen = []

    def items():
        for i in range(10):
            seen.append(i)
            yield i

    found = read_ahead(items(), 3)
    assert next(found) == 0
    time.sleep(0.1)
    assert seen == [0, 1, 2, 3], "the next three are read, and no more"
    assert list(found) == list(range(1, 10))

    def torn():
        yield 1
        raise DataError("torn")

    found = read_ahead(torn(), 3)
    assert next(found) == 1
    with pytest.raises(DataError, match="torn"):
        next(found)
    found = read_ahead(items(), 2)
    next(found)
    found.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reader")]
