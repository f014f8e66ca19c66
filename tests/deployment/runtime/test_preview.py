# SPDX-License-Identifier: Apache-2.0
"""The live preview as a browser reads it."""

import http.client
import threading

import paddle_dnl  # noqa: F401
from paddle_dnl.deployment.runtime.preview import Preview
from paddle_dnl.errors import UsageError

import cv2
import numpy as np
import pytest


@pytest.fixture
def preview():
    server = Preview(0)
    yield server
    server.close()


def _ask(preview, host=None):
    connection = http.client.HTTPConnection("127.0.0.1", preview.port, timeout=10)
    connection.request("GET", "/", headers={"Host": host} if host else {})
    return connection.getresponse()


def _part(answer) -> np.ndarray:
    """The next frame of a multipart answer."""
    assert answer.readline() == b"--frame\r\n"
    headers = dict(line.decode().strip().split(": ") for line in iter(answer.readline, b"\r\n"))
    assert headers["Content-Type"] == "image/jpeg"
    content = answer.read(int(headers["Content-Length"]))
    assert answer.readline() == b"\r\n"
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


def test_each_viewer_gets_the_newest_frame(preview):
    for number in range(50):
        preview.show(np.full((24, 32, 3), number, np.uint8))
    answers = [_ask(preview), _ask(preview)]
    assert answers[0].getheader("Content-Type") == "multipart/x-mixed-replace; boundary=frame"
    for answer in answers:
        assert abs(_part(answer).mean() - 49) < 2
    preview.show(np.full((24, 32, 3), 200, np.uint8))
    for answer in answers:
        assert abs(_part(answer).mean() - 200) < 2


def test_the_end_and_other_hosts(preview):
    assert _ask(preview, "attacker.example").status == 421
    with pytest.raises(UsageError, match=f"--preview {preview.port}: the port is not available"):
        Preview(preview.port)
    before = threading.active_count()
    other = Preview(0)
    answer = _ask(other)
    other.close()
    assert answer.read() == b"" and threading.active_count() <= before + 1
    with pytest.raises(UsageError, match="--preview 70000"):
        Preview(70000)
