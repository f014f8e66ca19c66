# SPDX-License-Identifier: Apache-2.0
"""The newest frame for a browser on this machine: motion JPEG over HTTP, which works without a screen and through `ssh -L`."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from paddle_dnl.data.overlay import encode_jpeg
from paddle_dnl.errors import UsageError
from paddle_dnl.log import logger

import numpy as np

_HOST, _BOUNDARY = "127.0.0.1", "frame"
# Seconds after which a viewer that reads nothing is disconnected.
_PATIENCE = 10


class Preview:
    """Serves `http://127.0.0.1:PORT/`. A viewer that is slow misses frames; without viewers nothing is encoded.

    Args:
        port: 0 takes a free one.

    Attributes:
        port: that is listened on.

    Raises:
        UsageError: the port cannot be taken.
    """

    def __init__(self, port: int):
        self._new, self._frame, self._number, self._ended = threading.Condition(), None, 0, False
        preview = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _PATIENCE

            def do_GET(self):  # noqa: N802  the library's name
                preview._answer(self)

            def log_message(self, *_):
                pass

        try:
            self._server = ThreadingHTTPServer((_HOST, port), Handler)
        except (OSError, OverflowError) as error:
            raise UsageError(f"--preview {port}: the port cannot be taken ({error})") from error
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="preview", daemon=True).start()
        logger.info(f"preview: http://{_HOST}:{self.port}/")

    def show(self, frame: np.ndarray) -> None:
        """Makes `frame`, BGR `[H, W, 3]`, the newest one."""
        with self._new:
            self._frame = frame
            self._number += 1
            self._new.notify_all()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        # Protects against DNS rebinding: a page whose host name resolves to this machine.
        if request.headers.get("Host", "").split(":")[0] not in (_HOST, "localhost"):
            request.send_error(421)
            return
        request.send_response(200)
        request.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        request.send_header("Cache-Control", "no-store")
        request.end_headers()
        seen = 0
        try:
            while True:
                with self._new:
                    self._new.wait_for(lambda: self._ended or self._number > seen)  # noqa: B023  called at once
                    if self._number == seen:
                        return
                    frame, seen = self._frame, self._number
                content = encode_jpeg(frame)
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
                request.wfile.write(head.encode() + content + b"\r\n")
        except OSError:  # the viewer has disconnected
            return

    def close(self) -> None:
        """Ends all answers and gives the port back."""
        with self._new:
            self._ended = True
            self._new.notify_all()
        self._server.shutdown()
        self._server.server_close()
