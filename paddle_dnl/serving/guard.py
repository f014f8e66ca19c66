# SPDX-License-Identifier: Apache-2.0
"""Access checks: host names, origins and the bearer token; security headers of all responses."""

import hmac
import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from paddle_dnl.addresses import is_loopback
from paddle_dnl.errors import UsageError
from paddle_dnl.serving.refusal import KSERVE, error_body

if TYPE_CHECKING:
    from paddle_dnl.serving.settings import Settings

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_MIN_TOKEN_LENGTH = 16
# Paths that need no token, because health probes have none.
OPEN_PATHS = ("/healthz", f"{KSERVE}/health/live", f"{KSERVE}/health/ready")


def read_token(path: Path | None) -> str | None:
    """Reads the bearer token from `token_file`; None without a file.

    Raises:
        UsageError: the file cannot be read, or the token is too short or not printable ASCII.
    """
    if path is None:
        return None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token_file {path}: cannot be read ({getattr(error, 'strerror', error)})") from error
    if len(token) < _MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"--token_file {path}: needs one line of {_MIN_TOKEN_LENGTH} or more printable ASCII characters, for example from "
            "`python -c 'import secrets; print(secrets.token_urlsafe(32))'`"
        )
    return token


class Guard:
    """ASGI middleware that refuses requests with other host names, from other websites, or without the token.

    A page of any website can make a browser send requests to a service on the same machine. It can neither set the
    `Host` header, which reveals DNS rebinding, nor omit `Origin`.

    Args:
        app: the wrapped application.
        settings: see `Settings`.
        token: bearer token that requests must have; None for no check.
    """

    # Starlette creates middleware only with the first request: nothing here may fail.
    def __init__(self, app, settings: "Settings", token: str | None):
        self._app, self._token = app, token
        self._hosts = set(settings.allowed_hosts)
        if not self._hosts and is_loopback(settings.host):
            self._hosts = {*_LOOPBACK_NAMES, settings.host}
        self._origins = {origin.rstrip("/").lower() for origin in settings.allowed_origins}

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = {key: value.decode("latin-1") for key, value in scope["headers"]}

        async def send_with_headers(message):
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        refusal = self._refusal(headers, scope["path"])
        if refusal is None:
            return await self._app(scope, receive, send_with_headers)
        status, text = refusal
        body = json.dumps(error_body(scope["path"], text), separators=(",", ":")).encode()
        more = {400: [(b"connection", b"close")], 401: [(b"www-authenticate", b"Bearer")]}.get(status, [])
        start = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *more]
        await send_with_headers({"type": "http.response.start", "status": status, "headers": start})
        await send({"type": "http.response.body", "body": body})

    def _refusal(self, headers: dict[bytes, str], path: str) -> tuple[int, str] | None:
        """Returns status code and text of a refusal, or None if the request is allowed."""
        if b"content-length" in headers and b"transfer-encoding" in headers:
            # Request smuggling: a proxy that uses the other header reads the body as the next request (RFC 9112, 6.1).
            return 400, "Content-Length and Transfer-Encoding exclude each other"
        host = headers.get(b"host", "")
        # Browsers always send `Host`; HTTP/1.0 clients may not.
        if self._hosts and host and _parsed(f"//{host}").hostname not in self._hosts:
            return 421, "this host name is not served (allowed_hosts)"
        origin = headers.get(b"origin", "").lower()
        own = host and _parsed(origin).netloc == host.lower()
        if origin and not own and origin not in self._origins:
            return 403, "pages of this origin may not use the service (allowed_origins)"
        if self._token is not None and path not in OPEN_PATHS:
            scheme, _, given = headers.get(b"authorization", "").partition(" ")
            # Constant-time comparison prevents timing attacks.
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token.encode()):
                return 401, "the header Authorization: Bearer TOKEN is missing or wrong (token_file)"
        return None


def _parsed(url: str) -> SplitResult:
    """Splits a URL; all parts are empty for malformed text, for which `urlsplit` raises an error."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")
