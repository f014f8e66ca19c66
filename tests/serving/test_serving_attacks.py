# SPDX-License-Identifier: Apache-2.0
"""Attacks on the service that once held it up: costly pictures, slow and silent clients, other websites, clients that leave."""

import asyncio
import concurrent.futures
import contextlib
import io
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from paddle_dnl.data.images.image_format import ImageFormat
from paddle_dnl.deployment.runtime.backend_process import BackendProcess
from paddle_dnl.errors import ExportError, UsageError
from paddle_dnl.serving.app import create_app
from paddle_dnl.serving.decoding import DecodePool
from paddle_dnl.serving.guard import read_token
from paddle_dnl.serving.protocol import ConnectionLimits, RateLimit
from paddle_dnl.serving.readers import PictureReader
from paddle_dnl.serving.refusal import Refusal
from paddle_dnl.serving.results import ClassNames
from paddle_dnl.serving.settings import Settings

import numpy as np
import psutil
import pytest
import serving_tools
from costly_pictures import many_scans
from PIL import Image
from serving_tools import client_of, label_of, png
from test_serving_queue import _Slow, _until
from tiny_export import blocks

IMAGE, LABEL = blocks(4, 8, 8)
READER = PictureReader(ImageFormat(), 1_000_000)


@pytest.fixture
def decoders():
    pool = DecodePool(1, seconds=1, memory=READER.memory)
    yield pool
    pool.close()


def test_a_decoder_that_hangs_is_replaced(decoders):
    np.testing.assert_array_equal(decoders.decode(READER, png(IMAGE))[0], IMAGE)
    process = decoders._all[0]._process
    os.kill(process.pid, signal.SIGSTOP)
    began = time.perf_counter()
    with pytest.raises(Refusal, match="decode_seconds") as refused:
        decoders.decode(READER, bytes(1_000_000))  # more than a pipe holds: the process never reads it
    assert refused.value.status == 422 and time.perf_counter() - began < 5 and not process.is_alive()
    np.testing.assert_array_equal(decoders.decode(READER, png(IMAGE))[0], IMAGE)


def test_memory_of_a_decoder_is_bounded():
    program = "from paddle_dnl.serving.decoding import _limit_memory; _limit_memory(64 << 20); bytearray(128 << 20)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "MemoryError" in done.stderr


def test_a_backend_that_hangs_before_it_reads_its_batch_is_replaced(exported):
    backend = BackendProcess(exported, cpu_threads=1, time_limit=1)
    try:
        os.kill(backend._process.pid, signal.SIGSTOP)
        with pytest.raises(ExportError, match="did not finish within 1 s"):
            backend.run(np.zeros((1, 3, 512, 512), np.float32))  # more than a pipe holds
        assert backend.run(np.zeros((1, 3, 32, 64), np.float32)).shape == (1, 32, 64)
    finally:
        backend.close()


def test_a_backend_ends_with_the_process_that_was_killed(exported):
    program = (
        "import os, signal, sys\nfrom paddle_dnl.deployment.runtime.backend_process import BackendProcess\n"
        "if __name__ == '__main__':\n"
        "    backend = BackendProcess(sys.argv[1])\n"
        "    os.kill(backend._process.pid, signal.SIGSTOP)\n"
        "    print(backend._process.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "program.py")
        with open(path, "w") as file:
            file.write(program)
        done = subprocess.run([sys.executable, path, str(exported)], capture_output=True, text=True, timeout=60)
    pid = int(done.stdout.split()[-1])
    _until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_slow_bodies_take_no_places(exported, predictor):
    """As many half-sent requests as there are places, and another client is answered."""
    app = create_app(predictor, Settings(model=exported, queue_size=3))
    release = asyncio.Event()

    async def slow():
        parts = [{"type": "http.request", "body": b"some", "more_body": True}]

        async def receive():
            if parts:
                return parts.pop()
            await release.wait()
            return {"type": "http.disconnect"}

        await app({**_scope(), "headers": []}, receive, lambda _: asyncio.sleep(0))

    async def all_of_them():
        waiting = [asyncio.ensure_future(slow()) for _ in range(8)]
        while app.state.service.admission.receiving < 8 * 4:
            await asyncio.sleep(0.01)
        status = await _status(app, png(IMAGE))
        release.set()
        await asyncio.gather(*waiting)
        return status

    assert asyncio.run(all_of_them()) == 200
    assert app.state.service.admission.receiving == 0
    app.state.service.stop()


def _scope() -> dict:
    return {"type": "http", "method": "POST", "path": "/v1/label", "query_string": b"", "headers": [], "root_path": ""}


async def _status(app, body: bytes) -> int:
    sent, given = [], [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if given:
            return given.pop()
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    await app(_scope(), receive, send)
    return sent[0]["status"]


def test_bytes_that_arrive_together_are_bounded(exported, predictor):
    settings = Settings(model=exported, queue_size=2, max_request_bytes=100_000)
    with client_of(create_app(predictor, settings)) as client:
        client.app.state.service.admission.arrived(190_000)  # of other requests
        assert client.post("/v1/label", content=png(IMAGE)).status_code == 200
        found = client.post("/v1/label", content=bytes(20_000))
        assert found.status_code == 429 and "arriving" in found.json()["detail"]


def test_who_leaves_gives_no_place_to_others_while_the_pixels_stay(exported, predictor):
    """One batch runs; clients come and go. Never more tensors wait than there are places for pixels."""
    slow = _Slow(predictor)
    app = create_app(slow, Settings(model=exported, queue_size=50))
    pipeline, most = app.state.service.pipeline, []
    original = pipeline.predictor.prepare

    def counted(*args):
        most.append(len(pipeline.queue))
        return original(*args)

    slow.prepare = counted

    async def come_and_go():
        for _ in range(4):
            tasks = [asyncio.ensure_future(_status(app, png(IMAGE))) for _ in range(6)]
            while len(pipeline.queue) < 2:
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # Those that were being read give their place back when they have been.
            while pipeline._pixel_slots._value < 2:
                await asyncio.sleep(0.01)
        free = pipeline._pixel_slots._value
        slow.go.set()
        while pipeline._pixel_slots._value < 3:
            await asyncio.sleep(0.01)
        return free

    # The one that runs keeps its place; those that waited were withdrawn and gave theirs back.
    assert asyncio.run(come_and_go()) == 2
    assert len(slow.batches) == 1 and max(most) <= 2
    app.state.service.stop()


def test_an_aborted_upload_is_no_error(exported, predictor, caplog):
    app = create_app(predictor, Settings(model=exported))
    sent = []

    async def send(message):
        sent.append(message)

    messages = [{"type": "http.disconnect"}, {"type": "http.request", "body": b"some", "more_body": True}]

    async def receive():
        return messages.pop()

    asyncio.run(app(_scope(), receive, send))
    assert sent[0]["status"] == 499 and not [r for r in caplog.records if r.levelno >= logging.WARNING]
    app.state.service.stop()


def test_forms_write_no_temporary_file(exported, predictor, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)
    monkeypatch.setattr(tempfile, "_TemporaryFileWrapper", lambda *_: pytest.fail("a temporary file"))
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", lambda _: pytest.fail("a temporary file"))
    with client_of(create_app(predictor, Settings(model=exported))) as client:
        found = client.post("/v1/label", files={"image": ("a.png", png(noise))})
        assert label_of(found).shape == (800, 800)


def test_other_websites_and_other_names_are_refused(exported, predictor):
    settings = Settings(model=exported, allowed_origins=["https://friend.example"])
    with client_of(create_app(predictor, settings)) as client:
        good = png(IMAGE)
        for origin, status in {
            "https://evil.example": 403,
            "null": 403,
            "http://[": 403,
            "http://127.0.0.1:99": 403,
            "http://127.0.0.1": 200,
            "https://friend.example": 200,
        }.items():
            assert client.post("/v1/label", content=good, headers={"Origin": origin}).status_code == status, origin
        for host, status in {"evil.example": 421, "localhost:8000": 200, "[::1]:8000": 200, "[": 421}.items():
            assert client.get("/v1/model", headers={"Host": host}).status_code == status, host
        for origin in ("null", "http://["):
            # Without a host there is nothing that an origin could equal.
            headers = {"Origin": origin, "Host": ""}
            assert client.post("/v1/label", content=good, headers=headers).status_code == 403, origin
    anywhere = Settings(model=exported, host="0.0.0.0")
    with client_of(create_app(predictor, anywhere)) as client:
        assert client.get("/v1/model", headers={"Host": "some.example"}).status_code == 200


def test_the_token(exported, predictor, tmp_path):
    (tmp_path / "token").write_text("correct-horse-battery\n")
    with client_of(create_app(predictor, Settings(model=exported, token_file=tmp_path / "token"))) as client:
        assert client.get("/healthz").status_code == 200
        for header in (None, "Bearer wrong", "Basic correct-horse-battery", "Bearer é"):
            headers = {} if header is None else {"Authorization": header.encode("latin-1")}
            found = client.post("/v1/label", content=png(IMAGE), headers=headers)
            assert found.status_code == 401 and found.headers["www-authenticate"] == "Bearer"
        good = {"Authorization": "Bearer correct-horse-battery"}
        assert client.post("/v1/label", content=png(IMAGE), headers=good).status_code == 200
    (tmp_path / "short").write_text("secret")
    for name in ("short", "missing"):
        with pytest.raises(UsageError, match=f"--token_file .*{name}"):
            read_token(tmp_path / name)


def test_every_answer_forbids_guessing_its_type(exported, predictor):
    with client_of(create_app(predictor, Settings(model=exported))) as client:
        answers = [client.get(path) for path in ("/", "/v1/model", "/metrics", "/nowhere")]
        answers += [client.post("/v1/overlay", content=png(IMAGE)), client.post("/v1/label", content=b"x")]
        answers.append(client.get("/", headers={"Host": "evil.example"}))
        assert {answer.headers["x-content-type-options"] for answer in answers} == {"nosniff"}


def test_a_class_name_that_is_no_text():
    class Info:
        names, colors = ("road", "\udc80"), ((1, 2, 3), (4, 5, 6))

    assert ClassNames(Info).describe(1)["name"] == "?"


def test_connections_are_counted():
    limits = ConnectionLimits(total=3, per_client=2, header_seconds=1)
    assert [limits.admit(client) for client in "aaabc"] == [True, True, False, False, False]
    for client in "aab":
        limits.closed(client)
    assert limits.admit("c") and not ConnectionLimits(9, 0, 1).open
    assert all(ConnectionLimits(9, 0, 1).admit("a") for _ in range(9))


def test_log_lines_are_limited():
    now = [0.0]
    limit = RateLimit(10, lambda: now[0])
    records = [logging.LogRecord("a", logging.ERROR, "", 0, "no %s", ("file",), None) for _ in range(101)]
    assert [limit.filter(record) for record in records[:100]] == [True] + 99 * [False]
    now[0] = 11.0
    assert limit.filter(records[100]) and records[100].getMessage() == "no file (99 more like it since)"


def _closed_after(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def test_silent_clients_are_closed_and_others_are_served(exported):
    flags = ["--header_seconds", 1, "--max_connections_per_client", 20]
    with serving_tools.Running(exported, *flags) as service:
        host, port = service.address.removeprefix("http://").split(":")
        silent = [socket.create_connection((host, int(port))) for _ in range(10)]
        half = socket.create_connection((host, int(port)))
        half.sendall(b"GET / HTTP/1.1\r\nHost: 127.0")
        np.testing.assert_array_equal(label_of(service.client.post("/v1/label", content=png(IMAGE))), LABEL)
        more = [socket.create_connection((host, int(port))) for _ in range(20)]
        assert sum(_closed_after(connection, 0.2) for connection in more) >= 10
        assert all(_closed_after(connection, 5) for connection in (*silent, half))
        assert service.client.get("/healthz").status_code == 200
        for connection in (*silent, half, *more):
            connection.close()
        assert service.stop() == 0 and "Traceback" not in "".join(service.lines)


def test_a_request_within_a_request_is_refused(exported):
    """A proxy that goes by Content-Length has let both pass as one; the connection ends, so the second is never read."""
    with serving_tools.Running(exported) as service:
        host, port = service.address.removeprefix("http://").split(":")
        hidden = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        body = b"0\r\n\r\n" + hidden
        head = f"POST /v1/label HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\nTransfer-Encoding: chunked\r\n\r\n"
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(head.encode() + body)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1") == 1
        # What libraries say of bad forms and pictures is in the answers and fills no log.
        floats = io.BytesIO()
        Image.fromarray(np.zeros((8, 8), np.float32)).save(floats, "TIFF")
        for _ in range(3):
            form = {"content": b"--x\r\nbad\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}
            assert service.client.post("/v1/label", **form).status_code == 400
            assert service.client.post("/v1/label", content=floats.getvalue()).status_code == 422
        assert service.stop() == 0
        assert not [line for line in service.lines if "INFO" not in line], service.lines


@pytest.mark.slow
def test_attacked_for_a_while_others_are_still_answered(exported):
    """Costly pictures, aborted uploads and silent connections together, for 20 s; memory stays and nothing is logged twice."""
    with serving_tools.Running(exported, "--max_connections_per_client", 0, "--header_seconds", 1) as service:
        host, port = service.address.removeprefix("http://").split(":")
        end, seconds = time.monotonic() + 20, []

        def attack(kind):
            while time.monotonic() < end:
                time.sleep(0.02)
                with socket.create_connection((host, int(port))) as connection:
                    if kind == "abort":
                        connection.sendall(
                            b"POST /v1/label HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999\r\n\r\nabc"
                        )
                    elif kind == "silent":
                        time.sleep(0.05)
                    else:
                        body = many_scans(3000)
                        head = f"POST /v1/label HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
                        connection.sendall(head.encode() + body)
                        with contextlib.suppress(ConnectionError):
                            connection.recv(1000)

        threads = [threading.Thread(target=attack, args=(kind,)) for kind in ("abort", "silent", "3000 scans")]
        for thread in threads:
            thread.start()
        memory = psutil.Process(service.process.pid).memory_info().rss
        while time.monotonic() < end:
            began = time.monotonic()
            assert service.client.post("/v1/label", content=png(IMAGE)).status_code == 200
            seconds.append(time.monotonic() - began)
        for thread in threads:
            thread.join()
        assert max(seconds) < 5
        assert psutil.Process(service.process.pid).memory_info().rss < memory + (200 << 20)
        began = time.monotonic()
        assert service.stop() == 0 and time.monotonic() - began < 20
        assert "Traceback" not in "".join(service.lines) and len(service.lines) < 100


def test_stopping_does_not_wait_for_a_decoder_that_hangs(exported, predictor):
    app = create_app(predictor, Settings(model=exported, decode_seconds=30))
    decoders = app.state.service.decoders
    with client_of(app) as client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert client.post("/v1/label", content=png(IMAGE)).status_code == 200
        for worker in decoders._all:
            if worker._process is not None:
                os.kill(worker._process.pid, signal.SIGSTOP)
        late = pool.submit(client.post, "/v1/label", content=png(IMAGE))
        time.sleep(0.3)
        decoders.close()
        assert late.result(10).status_code in (200, 422)
