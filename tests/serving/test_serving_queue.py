# SPDX-License-Identifier: Apache-2.0
"""The service's queue: full houses, time limits, failures, batches, and the process as a whole."""

import asyncio
import concurrent.futures
import threading
import time

from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import ExportError
from paddle_dnl.serving.app import create_app
from paddle_dnl.serving.batching import BatchQueue
from paddle_dnl.serving.settings import Settings

import numpy as np
import psutil
import pytest
import serving_tools
from serving_tools import client_of, label_of, png
from tiny_export import blocks


class _Slow:
    """A model that waits for permission, and counts what it is given."""

    def __init__(self, predictor):
        self._real, self.go, self.batches = predictor, threading.Event(), []
        self.classes, self.files, self.backend = predictor.classes, predictor.files, "slow"
        self.image_format, self.parallel = predictor.image_format, predictor.parallel
        self.prepare, self.postprocess = predictor.prepare, predictor.postprocess

    def run(self, batch):
        self.batches.append(len(batch))
        assert self.go.wait(20)
        return self._real.run(batch)


def _until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_full_house_says_429_and_stopping_finishes_what_is_in_it(exported, predictor):
    slow, good = _Slow(predictor), png(blocks(4, 8, 8)[0])
    app = create_app(slow, Settings(model=exported, queue_size=3))
    pipeline = app.state.service.pipeline
    with client_of(app) as client, concurrent.futures.ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(client.post, "/v1/label", content=good) for _ in range(3)]
        _until(lambda: len(pipeline.queue) == 2)
        full = client.post("/v1/label", content=good)
        assert (
            full.status_code == 429 and full.headers["retry-after"] == "1" and "(3 requests)" in full.json()["detail"]
        )
        assert client.get("/healthz").status_code == 200
        stopping = threading.Thread(target=pipeline.queue.stop)
        stopping.start()
        time.sleep(0.05)
        assert stopping.is_alive()
        slow.go.set()
        for future in waiting:
            np.testing.assert_array_equal(label_of(future.result()), blocks(4, 8, 8)[1])
        stopping.join(10)
        assert client.get("/healthz").status_code == 503
    assert client.post("/v1/label", content=good).status_code == 503


def test_time_limit_frees_the_place(exported, predictor):
    slow, good = _Slow(predictor), png(blocks(4, 8, 8)[0])
    app = create_app(slow, Settings(model=exported, queue_size=2, request_seconds=2))
    with client_of(app) as client, concurrent.futures.ThreadPoolExecutor(2) as pool:
        slow.go.set()  # a busy machine takes longer than 2 s to start the processes that decode
        while client.post("/v1/shares", content=good).status_code != 200:
            pass
        slow.go.clear()
        slow.batches.clear()
        late = [pool.submit(client.post, "/v1/shares", content=good) for _ in range(2)]
        for future in late:
            assert future.result().status_code == 504 and "2 s" in future.result().json()["detail"]
        slow.go.set()
        _until(lambda: len(app.state.service.pipeline.queue) == 0)
        assert client.post("/v1/shares", content=good).status_code == 200
        # The second of the late ones was never run.
        assert len(slow.batches) == 2


def _ask(app, bodies, gone=None) -> int:
    """A coroutine: the status of one request below HTTP, whose body comes in parts, and whose client may leave."""
    messages = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    sent = []

    async def receive():
        if messages:
            return messages.pop(0)
        while gone is None or not gone():
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/label", "query_string": b"", "headers": [], "root_path": ""}

    async def run():
        await app(scope, receive, send)
        return sent[0]["status"]

    if gone is not None:
        messages[-1]["more_body"] = False
    return run()


def test_who_leaves_is_not_worked_for(exported, predictor):
    slow, good = _Slow(predictor), png(blocks(4, 8, 8)[0])
    app = create_app(slow, Settings(model=exported))
    queue = app.state.service.pipeline.queue

    left = threading.Event()

    def leave() -> bool:
        if slow.batches and len(queue) == 1:  # one runs, one waits
            left.set()
        return left.is_set()  # also for the one that is asked after the other has been taken out of the queue

    async def both():
        return await asyncio.gather(_ask(app, [good], leave), _ask(app, [good[:99], good[99:]], leave))

    assert asyncio.run(both()) == [499, 499]
    slow.go.set()
    queue.stop()
    assert slow.batches == [1]


def test_a_body_that_never_ends(exported, predictor):
    app = create_app(predictor, Settings(model=exported, body_seconds=0.2))
    admission = app.state.service.admission
    assert asyncio.run(_ask(app, [b"some", b"more"])) == 408
    assert admission.inside == 0 and admission.receiving == 0
    app.state.service.stop()


def test_a_model_that_fails_fails_its_batch_only(exported, predictor, monkeypatch):
    slow, good = _Slow(predictor), png(blocks(4, 8, 8)[0])
    app = create_app(slow, Settings(model=exported))
    with client_of(app) as client:
        with monkeypatch.context() as patch:
            patch.setattr(slow, "_real", None)
            patch.setattr(slow.go, "wait", lambda _: (_ for _ in ()).throw(ExportError("native code gave up")))
            found = client.post("/v1/label", content=good)
            assert found.status_code == 500 and "native code gave up" in found.json()["detail"]
        slow.go.set()
        assert client.post("/v1/label", content=good).status_code == 200


def test_queue_batches_by_size_in_order():
    seen, go = [], threading.Event()

    def run(batch):
        go.wait(10)
        seen.append(batch[:, 0, 0, 0].tolist())
        return batch * 2

    queue = BatchQueue(run, max_batch=3, wait_seconds=0.05)
    first = queue.submit(np.full((1, 2, 2), 0.0))
    _until(lambda: len(queue) == 0)
    sizes = (2, 2, 4, 2, 2, 4, 4)
    futures = [queue.submit(np.full((1, n, n), i + 1.0)) for i, n in enumerate(sizes)]
    queue.withdraw(futures[3])
    go.set()
    queue.stop()
    assert seen == [[0], [1, 2, 5], [3, 6, 7]]
    assert first.result().shape == (1, 2, 2) and not queue.alive
    for i in (0, 1, 2, 4, 5, 6):
        assert futures[i].result()[0, 0, 0] == 2 * (i + 1)
    with pytest.raises(RuntimeError, match="stopped"):
        queue.submit(np.zeros((1, 2, 2)))


def test_queue_waits_for_more_but_not_for_long():
    sizes, seconds = [], []
    queue = BatchQueue(lambda batch: batch, 4, 0.3, lambda size, taken: sizes.append(size))
    began = time.perf_counter()
    queue.submit(np.zeros((1, 1, 1))).result(10)
    seconds.append(time.perf_counter() - began)
    futures = []
    for _ in range(4):
        time.sleep(0.01)
        futures.append(queue.submit(np.zeros((1, 1, 1))))
    began = time.perf_counter()
    concurrent.futures.wait(futures, 10)
    seconds.append(time.perf_counter() - began)
    queue.stop()
    assert sizes == [1, 4] and 0.25 < seconds[0] < 2 and seconds[1] < 0.2


def test_models_with_a_free_batch_are_batched(tmp_path):
    predictor = Predictor(serving_tools.export(tmp_path, (-1, 3, -1, -1)))
    slow = _Slow(predictor)
    app = create_app(slow, Settings(model=tmp_path, max_batch=4, batch_wait_ms=50))
    pictures = [blocks(4, 8, 8, seed) for seed in range(5)] + [blocks(2, 2, 8, 9)]
    with client_of(app) as client, concurrent.futures.ThreadPoolExecutor(6) as pool:
        first = pool.submit(client.post, "/v1/label", content=png(pictures[0][0]))
        _until(lambda: len(slow.batches) == 1)
        others = [pool.submit(client.post, "/v1/label", content=png(image)) for image, _ in pictures[1:]]
        _until(lambda: len(app.state.service.pipeline.queue) == 5)
        slow.go.set()
        for future, (_, label) in zip([first, *others], pictures, strict=True):
            np.testing.assert_array_equal(label_of(future.result()), label)
    assert sorted(slow.batches) == [1, 1, 4] and slow.batches[0] == 1


@pytest.mark.slow
def test_the_whole_service_stops_when_its_requests_are_answered(exported):
    image, label = blocks(4, 8, 8)
    with serving_tools.Running(exported) as service, concurrent.futures.ThreadPoolExecutor(8) as pool:
        backend = psutil.Process(service.process.pid).children()
        backend = next(child for child in backend if "spawn_main" in " ".join(child.cmdline()))
        # While the backend stands still requests pile up, and other addresses answer.
        backend.suspend()
        waiting = [pool.submit(service.client.post, "/v1/label", content=png(image)) for _ in range(8)]
        inside = "segmentation_requests_inside 8.0"
        _until(lambda: inside in service.client.get("/metrics").text)
        assert service.client.get("/healthz").status_code == 200
        stopping = threading.Thread(target=service.stop)
        stopping.start()
        time.sleep(0.5)
        assert service.process.poll() is None
        backend.resume()
        for future in waiting:
            np.testing.assert_array_equal(label_of(future.result()), label)
        stopping.join(30)
        assert service.process.returncode == 0
        assert "all requests are finished" in service.lines[-1] and not backend.is_running()
