# SPDX-License-Identifier: Apache-2.0
"""`Service`: receives requests, selects the model and responds in time; turns refusals into responses."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from paddle_dnl.serving.admission import Admission
from paddle_dnl.serving.decoding import DecodePool
from paddle_dnl.serving.metrics import Metrics
from paddle_dnl.serving.pipeline import PictureWork, Pipeline, TensorWork
from paddle_dnl.serving.readers import PictureReader
from paddle_dnl.serving.refusal import Refusal, error_body
from paddle_dnl.serving.results import ClassNames
from paddle_dnl.serving.uploads import Upload

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from paddle_dnl.deployment.runtime.predictor import Predictor
    from paddle_dnl.serving.settings import Settings

# Interval at which a request checks whether its client is connected.
_LOOK_SECONDS = 0.5


def error_response(path: str, status: int, text: str, headers: Mapping | None = None) -> JSONResponse:
    """Response for an error, in the format that the protocol of the path defines."""
    return JSONResponse(error_body(path, text), status, headers)


async def _unless_gone(request: Request, work) -> bytes:
    """Returns the result of `work`, which is canceled when the client disconnects.

    Raises:
        Refusal: 499; the client has disconnected.
    """
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            if await request.is_disconnected():
                raise Refusal(499, "the client has disconnected")
            await asyncio.wait([task], timeout=_LOOK_SECONDS)
        return task.result()
    finally:
        task.cancel()


class Service:
    """Responds to requests that contain a picture or a tensor.

    Args:
        models: name -> model; the first one is the default.
        settings: see `Settings`.

    Attributes:
        models: name -> `Pipeline`.
        admission: limits of requests and bytes over all models.
        decoders: decoding processes, shared by all models.
    """

    def __init__(self, models: "Mapping[str, Predictor]", settings: "Settings"):
        self.settings, self.metrics = settings, Metrics()
        self.admission = Admission(settings, self.metrics)
        readers = [PictureReader(predictor.image_format, settings.max_pixels) for predictor in models.values()]
        self.decoders = DecodePool(settings.workers, settings.decode_seconds, max(one.memory for one in readers))
        self.models = {
            name: Pipeline(name, predictor, ClassNames(predictor.classes), settings, self.metrics, self.decoders)
            for name, predictor in models.items()
        }

    @property
    def pipeline(self) -> Pipeline:
        """The default model."""
        return next(iter(self.models.values()))

    def find(self, name: str | None) -> Pipeline:
        """Returns the model with this name; the default model for None.

        Raises:
            Refusal: 404; there is no such model.
        """
        if name is None:
            return self.pipeline
        if name not in self.models:
            raise Refusal(404, f"there is no model {name[:100]!r}; this service has {', '.join(self.models)}")
        return self.models[name]

    def is_ready(self, pipeline: Pipeline) -> bool:
        """Whether the service can answer requests to a model."""
        return pipeline.queue.alive and not self.admission.stopping

    @property
    def ready(self) -> bool:
        """Whether the service can answer requests to all models."""
        return all(map(self.is_ready, self.models.values()))

    async def answer(
        self, request: Request, name: str | None, make_work: Callable[[Pipeline], PictureWork | TensorWork]
    ) -> Response:
        """Receives a request, runs the model and responds, within the time limits; turns a refusal into a response.

        Args:
            request: a request whose body has not been read yet.
            name: name of the model; None: the default model.
            make_work: called with the model; may raise `Refusal`.
        """
        limit, path = self.settings.request_seconds, request.url.path
        upload = Upload(request, self.settings.max_request_bytes, self.admission.arrived)
        try:
            pipeline = self.find(name)
            request.state.model = pipeline.name
            work = make_work(pipeline)
            content = await self._receive(upload)
            with self.admission.place():
                upload.release()
                try:
                    answer = await asyncio.wait_for(_unless_gone(request, pipeline.answer(content, work)), limit)
                except asyncio.TimeoutError as error:
                    raise Refusal(504, f"not finished within {limit:g} s (request_seconds)") from error
            timing = ", ".join(f"{step};dur={value:.1f}" for step, value in work.milliseconds.items())
            return Response(answer, headers={**work.headers, "Server-Timing": timing})
        except ClientDisconnect:
            return error_response(path, 499, "the client has disconnected")
        except Refusal as refusal:
            retry = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
            # Does not wait again for a client that was too slow.
            if refusal.status != 408:
                with contextlib.suppress(asyncio.TimeoutError, ClientDisconnect):
                    await asyncio.wait_for(upload.drain(), self.settings.body_seconds)
            return error_response(path, refusal.status, refusal.text, retry)
        finally:
            upload.release()

    async def _receive(self, upload: Upload) -> bytes:
        """Returns the body of the request.

        Raises:
            Refusal: 408; the body did not arrive within the time limit.
        """
        limit = self.settings.body_seconds
        try:
            return await asyncio.wait_for(upload.read(), limit)
        except asyncio.TimeoutError as error:
            raise Refusal(408, f"the request did not arrive within {limit:g} s (body_seconds)") from error

    def stop(self) -> None:
        """Refuses new requests and finishes the admitted ones."""
        self.admission.stopping = True
        for pipeline in self.models.values():
            pipeline.stop()
        self.decoders.close()
