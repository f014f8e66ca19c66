# SPDX-License-Identifier: Apache-2.0
"""The HTTP interface: addresses, statuses, time limits, and the description that clients can read (/openapi.json)."""

import asyncio
import base64
import contextlib
import hashlib
import re
import time
from pathlib import Path
from typing import Annotated, Literal

import paddle_dnl
from paddle_dnl.data.overlay import encode_image, encode_label_png, overlay
from paddle_dnl.data.probability_files import probability_file
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.errors import UsageError
from paddle_dnl.log import logger

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from .guard import Guard
from .metrics import Metrics
from .pipeline import Pipeline, Work
from .refusal import Refusal
from .results import Masks, Shares, as_json, masks, shares
from .settings import Settings
from .uploads import FIELD, Upload

# Interval at which a request checks whether its client is connected.
_LOOK_SECONDS = 0.5
CONTENT_TYPES = ("image/png", "image/jpeg", "image/bmp", "image/tiff", "image/webp")


class Problem(BaseModel):
    """Every error's body."""

    detail: str


class Health(BaseModel):
    """Whether requests are answered."""

    status: str


class NamedClass(BaseModel):
    """A class of the model."""

    id: int
    name: str
    color: tuple[int, int, int]


class ModelDescription(BaseModel):
    """What the service runs."""

    version: str
    backend: str
    input_shape: list[int | None] | None
    max_batch: int
    wrong_size: str | None
    tile: str
    max_request_bytes: int
    max_pixels: int
    classes: list[NamedClass]


_binary = {"schema": {"type": "string", "format": "binary"}}
_form = {
    "schema": {
        "type": "object",
        "required": [FIELD],
        "properties": {FIELD: {"type": "string", "format": "binary"}},
    }
}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "The picture: as it is, or as a file in a form",
        "content": {
            **dict.fromkeys((*CONTENT_TYPES, "application/octet-stream"), _binary),
            "multipart/form-data": _form,
        },
    }
}
_WRONG = {
    400: "A form that is none",
    401: "The token is missing or wrong",
    403: "A page of another website",
    408: "The picture did not arrive in time",
    413: "Too many bytes or pixels",
    415: "No picture of a known format",
    421: "A host name that is not served",
    422: "An empty or damaged picture, one that does not fit the model, or a wrong parameter",
    429: "All places are taken",
    500: "The model failed",
    503: "The service is being stopped",
    504: "Not finished in time",
}
_PROBLEMS = {status: {"model": Problem, "description": text} for status, text in _WRONG.items()}
_NPZ = {200: {"content": {"application/zip": _binary}, "description": "An .npz"}}
_PNG = {200: {"content": {"image/png": _binary}, "description": "A PNG of the picture's size"}}


async def _until_gone(request: Request) -> None:
    """Returns when the client has disconnected."""
    while not await request.is_disconnected():
        await asyncio.sleep(_LOOK_SECONDS)


async def _unless_gone(request: Request, work) -> bytes:
    """The result of `work`, which is cancelled when the client disconnects."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(_until_gone(request))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise Refusal(499, "the client left")
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


def _error(status: int, text: str, headers: dict | None = None) -> JSONResponse:
    return JSONResponse({"detail": text}, status, headers)


class Service:
    """Answers requests with pictures.

    Args:
        predictor: the model.
        settings: see `Settings`.
    """

    def __init__(self, predictor: Predictor, settings: Settings):
        self.settings, self.metrics = settings, Metrics()
        self.pipeline = Pipeline(predictor, settings, self.metrics)

    async def segment(self, request: Request, work: Work, media_type: str) -> Response:
        """Receives, works and answers, each within its time; every refusal becomes a response here."""
        limit = self.settings.request_seconds
        upload = Upload(request, self.settings.max_request_bytes, self.pipeline.arrived)
        try:
            content = await self._receive(upload)
            with self.pipeline.admission():
                upload.release()
                try:
                    answer = await asyncio.wait_for(_unless_gone(request, self.pipeline.answer(content, work)), limit)
                except asyncio.TimeoutError as error:
                    raise Refusal(504, f"not finished within {limit:g} s (request_seconds)") from error
            timing = ", ".join(f"{name};dur={value:.1f}" for name, value in work.milliseconds.items())
            return Response(answer, media_type=media_type, headers={"Server-Timing": timing})
        except ClientDisconnect:
            return _error(499, "the client left")
        except Refusal as refusal:
            retry = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
            # Who was too slow is not waited for again.
            if refusal.status != 408:
                with contextlib.suppress(asyncio.TimeoutError, ClientDisconnect):
                    await asyncio.wait_for(upload.drain(), self.settings.body_seconds)
            return _error(refusal.status, refusal.text, retry)
        finally:
            upload.release()

    async def _receive(self, upload: Upload) -> bytes:
        """The body within its time limit, else 408."""
        limit = self.settings.body_seconds
        try:
            return await asyncio.wait_for(upload.read(), limit)
        except asyncio.TimeoutError as error:
            raise Refusal(408, f"the picture did not arrive within {limit:g} s (body_seconds)") from error

    def describe(self) -> ModelDescription:
        """Model and limits."""
        predictor, settings = self.pipeline.predictor, self.settings
        classes = self.pipeline.classes
        return ModelDescription(
            version=paddle_dnl.__version__,
            backend=predictor.backend,
            input_shape=predictor.files.input_shape,
            max_batch=self.pipeline.max_batch,
            wrong_size=settings.wrong_size,
            tile=settings.tile,
            max_request_bytes=settings.max_request_bytes,
            max_pixels=settings.max_pixels,
            classes=[NamedClass(**classes.describe(number)) for number in range(len(classes.names))],
        )


def _add_segmentation(app: FastAPI, service: Service) -> None:
    classes = service.pipeline.classes

    @app.post("/v1/label", response_class=Response, responses=_PROBLEMS | _PNG, openapi_extra=_BODY)
    async def label(request: Request) -> Response:
        """The class number of each pixel, as a PNG with a palette: programs read numbers, people see colours."""
        work = Work(lambda found, _: encode_label_png(found, classes.colors))
        return await service.segment(request, work, "image/png")

    @app.post("/v1/overlay", response_class=Response, responses=_PROBLEMS | _PNG, openapi_extra=_BODY)
    async def overlay_png(request: Request, opacity: Annotated[float, Query(ge=0, le=1)] = 0.4) -> Response:
        """The picture with the classes' colours over it; 0 is the picture alone, 1 the colours."""

        def finish(found, picture) -> bytes:
            return encode_image(overlay(picture, found, classes.colors, 1 - opacity))

        return await service.segment(request, Work(finish, needs_picture=True), "image/png")

    @app.post("/v1/probabilities", response_class=Response, responses=_PROBLEMS | _NPZ, openapi_extra=_BODY)
    async def probabilities(request: Request, kind: Literal["float16", "uint8"] = "float16") -> Response:
        """The probability of each class in each pixel: an .npz with `probabilities` [K, H, W]; uint8 holds them times 255.

        Only of models that are exported with `--output_op softmax` or `none`; others answer 422.
        """
        try:
            service.pipeline.predictor.require_scores()
        except UsageError:
            return _error(422, "this model gives classes, not probabilities; export it with --output_op softmax")
        work = Work(lambda found, _: probability_file(found, kind), needs_scores=True)
        return await service.segment(request, work, "application/zip")

    @app.post("/v1/shares", response_model=Shares, responses=_PROBLEMS, openapi_extra=_BODY)
    async def class_shares(request: Request) -> Response:
        """Which classes there are and how much of the picture each one takes."""
        work = Work(lambda found, _: as_json(shares(found, classes)))
        return await service.segment(request, work, "application/json")

    @app.post("/v1/rle", response_model=Masks, responses=_PROBLEMS, openapi_extra=_BODY)
    async def run_lengths(request: Request) -> Response:
        """The mask of each class as COCO's uncompressed run lengths."""
        work = Work(lambda found, _: as_json(masks(found, classes)))
        return await service.segment(request, work, "application/json")


def _content_security_policy(page: str) -> str:
    """Allows the page's own script and style, by their digests, and nothing else."""

    def digests(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        found = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts)
        return " ".join(f"'sha256-{digest}'" for digest in found)

    return (
        f"default-src 'none'; script-src {digests('script')}; style-src {digests('style')}; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _add_information(app: FastAPI, service: Service) -> None:
    page = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    page_headers = {"Content-Security-Policy": _content_security_policy(page)}

    @app.get("/", response_class=HTMLResponse)
    async def page_for_people() -> HTMLResponse:
        """A page on which to drop a picture."""
        return HTMLResponse(page, headers=page_headers)

    @app.get("/v1/model")
    async def model() -> ModelDescription:
        """Model, classes and limits."""
        return service.describe()

    @app.get("/healthz", responses={503: {"model": Problem, "description": "Not able to answer"}})
    async def health() -> Health:
        """200 while requests are answered."""
        if not service.pipeline.ready:
            raise HTTPException(503, "the service is being stopped, or its backend's thread has ended")
        return Health(status="ok")

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Count:
    """Counts every answer by address and status; an ASGI layer, which passes the body on as it comes."""

    def __init__(self, app, metrics: Metrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status = time.perf_counter(), 500

        async def noted(message):
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            # Made-up addresses share one name, so that nobody can fill the memory with counters.
            endpoint = getattr(scope.get("route"), "path", "other")
            self._metrics.answered(endpoint, status, time.perf_counter() - began)


def create_app(predictor: Predictor, settings: Settings) -> FastAPI:
    """The application.

    Args:
        predictor: the model; its backend is called from one thread.
        settings: see `Settings`.
    """
    service = Service(predictor, settings)

    @contextlib.asynccontextmanager
    async def lifespan(_):
        yield
        service.pipeline.stop()
        logger.info("all requests are answered; the service ends")

    # The usual pages of documentation load scripts from elsewhere.
    app = FastAPI(
        title="paddle-dnl segmentation",
        version=paddle_dnl.__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    _add_segmentation(app, service)
    _add_information(app, service)

    app.add_middleware(Guard, settings=settings)
    app.add_middleware(_Count, metrics=service.metrics)

    @app.exception_handler(RequestValidationError)
    async def wrong_parameter(request: Request, error: RequestValidationError):
        text = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return _error(422, text)

    return app
