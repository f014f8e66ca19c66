# SPDX-License-Identifier: Apache-2.0
"""Receives the picture of a request from the body or the form field `image`, with a limit of bytes."""

from collections.abc import Callable

from paddle_dnl.serving.refusal import Refusal

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

FIELD = "image"
# Additional bytes that a form may have for boundaries and names.
_FORM_EXTRA = 10_000
# Maximum number of bytes to read from a refused body, so that the client gets the response and not a broken connection.
_DRAIN = 100_000_000


def too_large(limit: int) -> Refusal:
    """Returns the refusal of a request with too many bytes."""
    return Refusal(413, f"the request is larger than {limit} bytes (max_request_bytes)")


class Upload:
    """The body of a request, which arrives in parts and may never end.

    Args:
        request: a request whose body has not been read yet.
        limit: maximum number of bytes.
        arrived: called with the size of each part, and with the negative sum by `release`; may raise `Refusal`.
    """

    def __init__(self, request: Request, limit: int, arrived: Callable[[int], None]):
        self._headers, self._receive, self._limit = request.headers, request.receive, limit
        self._request = Request(request.scope, self._counted)
        self._received, self._complete = 0, False
        self._arrived, self._held = arrived, 0
        announced = self._headers.get("content-length", "")
        self._announced = int(announced) if announced.isdigit() else None

    async def _next(self) -> dict:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message

    async def _counted(self) -> dict:
        message = await self._next()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect()
        if self._received > self._limit:
            raise too_large(self._limit)
        count = len(message.get("body", b""))
        self._arrived(count)
        self._held += count
        return message

    def release(self) -> None:
        """Subtracts the received bytes from the count of `arrived`."""
        held, self._held = self._held, 0
        if held:
            self._arrived(-held)

    async def read(self) -> bytes:
        """Returns the picture's bytes, at least one.

        Raises:
            Refusal: too many bytes, none, or a form without the field.
        """
        is_form = self._headers.get("content-type", "").lower().startswith("multipart/form-data")
        self._limit += _FORM_EXTRA if is_form else 0
        if self._announced is not None and self._announced > self._limit:
            raise too_large(self._limit)
        if is_form:
            parser = MultiPartParser(self._headers, self._request.stream(), max_files=1, max_fields=8)
            # Avoids a temporary file: `limit` bytes may be in memory.
            parser.spool_max_size = self._limit
            try:
                form = await parser.parse()
            except MultiPartException as error:
                raise HTTPException(400, error.message) from error
            try:
                part = form.get(FIELD)
                if not isinstance(part, UploadFile):
                    raise Refusal(422, f"the form has no file in a field named {FIELD!r}")
                content = await part.read()
            finally:
                await form.close()
        else:
            content = await self._request.body()
        if not content:
            raise Refusal(422, "the body is empty (0 bytes)")
        return content

    async def drain(self) -> None:
        """Reads and discards the rest of a refused body, so that the client reads the response.

        Does nothing if the client waits for permission (`Expect: 100-continue`) or announces more than `_DRAIN` bytes.
        """
        if "expect" in self._headers or (self._announced or 0) > _DRAIN:
            return
        while not self._complete and self._received <= _DRAIN:
            if (await self._next())["type"] == "http.disconnect":
                return
