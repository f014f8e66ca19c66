# SPDX-License-Identifier: Apache-2.0
"""Serves the newest frame to browsers on this machine as motion JPEG over HTTP; use `ssh -L` from other machines."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from paddle_dnl.data.overlay import encode_jpeg
from paddle_dnl.errors import UsageError
from paddle_dnl.log import logger

import numpy as np

_HOST, _BOUNDARY = "127.0.0.1", "frame"
# Seconds after which a viewer that does not read is disconnected.
_TIMEOUT_SECONDS = 10


class _Handler(BaseHTTPRequestHandler):
    """Sends the frames of `server.preview` until it is closed or the viewer disconnects."""

    timeout = _TIMEOUT_SECONDS

    def do_GET(self):  # noqa: N802  name of the base class
        # Protects against DNS rebinding: web pages whose host name resolves to this machine.
        if self.headers.get("Host", "").split(":")[0] not in (_HOST, "localhost"):
            self.send_error(421)
            return
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        seen = 0
        try:
            while (found := self.server.preview.wait(seen)) is not None:
                frame, seen = found
                content = encode_jpeg(frame)
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
                self.wfile.write(head.encode() + content + b"\r\n")
        except OSError:  # the viewer has disconnected
            return

    def log_message(self, *_):
        pass


class Preview:
    """Serves `http://127.0.0.1:PORT/`. Slow viewers skip frames; without viewers nothing is encoded.

    Args:
        port: port to listen on; 0 chooses a free one.

    Attributes:
        port: port that the server listens on.

    Raises:
        UsageError: the port is not available.
    """

    def __init__(self, port: int):
        self._new, self._frame, self._number, self._ended = threading.Condition(), None, 0, False
        try:
            self._server = ThreadingHTTPServer((_HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UsageError(f"--preview {port}: the port is not available ({error})") from error
        self._server.daemon_threads, self._server.preview = True, self
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="preview", daemon=True).start()
        logger.info(f"preview: http://{_HOST}:{self.port}/")

    def show(self, frame: np.ndarray) -> None:
        """Sets the newest frame, BGR `[H, W, 3]`."""
        with self._new:
            self._frame = frame
            self._number += 1
            self._new.notify_all()

    def wait(self, seen: int) -> tuple[np.ndarray, int] | None:
        """Waits for a frame with a number above `seen`; returns the newest frame and its number, None after `close`."""
        with self._new:
            self._new.wait_for(lambda: self._ended or self._number > seen)
            return (self._frame, self._number) if self._number > seen else None

    def close(self) -> None:
        """Ends all responses and closes the port."""
        with self._new:
            self._ended = True
            self._new.notify_all()
        self._server.shutdown()
        self._server.server_close()
