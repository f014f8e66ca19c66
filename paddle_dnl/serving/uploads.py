"""The picture's bytes from a request: the body itself, or the field `image` of a form; never more than allowed."""

from fastapi import Request
from starlette.datastructures import UploadFile

from .refusal import Refusal

FIELD = "image"
# A form has boundaries and names around the picture.
_FORM_EXTRA = 10_000
# How much of a refused body is still taken in, so that the client reads the answer and not a broken connection.
_DRAIN = 100_000_000


def too_large(limit: int) -> Refusal:
    """The refusal of a request with too many bytes."""
    return Refusal(413, f"the request has more than the {limit} bytes that are allowed (max_request_bytes)")


class Upload:
    """The body of a request, which arrives bit by bit and may never end.

    Args:
        request: a request whose body nobody has touched.
        limit: bytes that are allowed.
    """

    def __init__(self, request: Request, limit: int):
        self._headers, self._receive, self._limit = request.headers, request.receive, limit
        self._request = Request(request.scope, self._counted)
        self._received, self._complete = 0, False
        announced = self._headers.get("content-length", "")
        self._announced = int(announced) if announced.isdigit() else None

    async def _next(self) -> dict:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message

    async def _counted(self) -> dict:
        message = await self._next()
        if self._received > self._limit:
            raise too_large(self._limit)
        return message

    async def read(self) -> bytes:
        """The picture's bytes, at least one.

        Raises:
            Refusal: too many bytes, none, or a form without the field.
        """
        is_form = self._headers.get("content-type", "").lower().startswith("multipart/form-data")
        self._limit += _FORM_EXTRA if is_form else 0
        if self._announced is not None and self._announced > self._limit:
            raise too_large(self._limit)
        if is_form:
            async with self._request.form(max_files=1, max_fields=8) as form:
                part = form.get(FIELD)
                if not isinstance(part, UploadFile):
                    raise Refusal(422, f"the form has no file in a field named {FIELD!r}")
                content = await part.read()
        else:
            content = await self._request.body()
        if not content:
            raise Refusal(422, "the picture is empty (0 bytes)")
        return content

    async def drain(self) -> None:
        """Takes in the rest of a refused body and forgets it, so that the client gets to read why.

        A client that asked first (`Expect: 100-continue`) or announces more than `_DRAIN` is not waited for.
        """
        if "expect" in self._headers or (self._announced or 0) > _DRAIN:
            return
        while not self._complete and self._received <= _DRAIN:
            await self._next()
