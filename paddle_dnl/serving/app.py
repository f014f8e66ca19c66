# SPDX-License-Identifier: Apache-2.0
"""The HTTP interface: routes, status codes, and the OpenAPI description (/openapi.json)."""

import base64
import contextlib
import hashlib
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import paddle_dnl
from paddle_dnl.data.overlay import encode_image, encode_label_png, overlay
from paddle_dnl.data.probability_files import probability_file
from paddle_dnl.errors import UsageError
from paddle_dnl.log import logger
from paddle_dnl.serving.guard import Guard, read_token
from paddle_dnl.serving.kserve import add_kserve
from paddle_dnl.serving.metrics import Metrics
from paddle_dnl.serving.pipeline import PictureWork, Pipeline
from paddle_dnl.serving.refusal import Refusal
from paddle_dnl.serving.results import Masks, Shares, as_json, masks, shares
from paddle_dnl.serving.service import Service, error_response
from paddle_dnl.serving.uploads import FIELD

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from paddle_dnl.deployment.runtime.predictor import Predictor
    from paddle_dnl.serving.settings import Settings

_PORTABLE = ("image/x-portable-pixmap", "image/x-portable-graymap")
CONTENT_TYPES = ("image/png", "image/jpeg", "image/bmp", "image/tiff", "image/webp", *_PORTABLE)
_PNG_HEADERS, _JSON_HEADERS = {"Content-Type": "image/png"}, {"Content-Type": "application/json"}
ModelName = Annotated[str | None, Query(description="name of the model; default: the first one")]


class Problem(BaseModel):
    """Body of every error."""

    detail: str


class Health(BaseModel):
    """Status of the service."""

    status: str


class NamedClass(BaseModel):
    """A class of the model."""

    id: int
    name: str
    color: tuple[int, int, int]


class ModelDescription(BaseModel):
    """A model and the limits of the service."""

    name: str
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
        "description": "The picture: as the body, or as a file in a form",
        "content": {
            **dict.fromkeys((*CONTENT_TYPES, "application/octet-stream"), _binary),
            "multipart/form-data": _form,
        },
    }
}
_WRONG = {
    400: "An invalid form",
    401: "The token is missing or wrong",
    403: "A page of another website",
    404: "No model of this name",
    408: "The picture did not arrive in time",
    413: "Too many bytes or pixels",
    415: "No picture of a known format",
    421: "A host name that is not served",
    422: "An empty or damaged picture, one that does not fit the model, or a wrong parameter",
    429: "The queue is full",
    500: "The model failed",
    503: "The service is being stopped",
    504: "Not finished in time",
}
_PROBLEMS = {status: {"model": Problem, "description": text} for status, text in _WRONG.items()}
_NPZ = {200: {"content": {"application/zip": _binary}, "description": "An .npz"}}
_PNG = {200: {"content": {"image/png": _binary}, "description": "A PNG of the picture's size"}}


def _add_segmentation(app: FastAPI, service: Service) -> None:
    """Adds the routes that receive a picture."""

    @app.post("/v1/label", response_class=Response, responses=_PROBLEMS | _PNG, openapi_extra=_BODY)
    async def label(request: Request, model: ModelName = None) -> Response:
        """The class number of each pixel, as a PNG with a palette of the classes' colors."""

        def make_work(pipeline: Pipeline) -> PictureWork:
            colors = pipeline.classes.colors
            return PictureWork(lambda found, _: encode_label_png(found, colors), headers=_PNG_HEADERS)

        return await service.answer(request, model, make_work)

    @app.post("/v1/overlay", response_class=Response, responses=_PROBLEMS | _PNG, openapi_extra=_BODY)
    async def overlay_png(
        request: Request, opacity: Annotated[float, Query(ge=0, le=1)] = 0.4, model: ModelName = None
    ) -> Response:
        """The picture overlaid with the classes' colors; opacity 0 shows only the picture, 1 only the colors."""

        def make_work(pipeline: Pipeline) -> PictureWork:
            def finish(found, picture) -> bytes:
                return encode_image(overlay(picture, found, pipeline.classes.colors, 1 - opacity))

            return PictureWork(finish, needs_picture=True, headers=_PNG_HEADERS)

        return await service.answer(request, model, make_work)

    @app.post("/v1/probabilities", response_class=Response, responses=_PROBLEMS | _NPZ, openapi_extra=_BODY)
    async def probabilities(
        request: Request, kind: Literal["float16", "uint8"] = "float16", model: ModelName = None
    ) -> Response:
        """The probability of each class in each pixel: an .npz with `probabilities` [K, H, W]; uint8: round(255 * p).

        The model must be exported with `--output_op softmax` or `none`, else the status is 422.
        """

        def make_work(pipeline: Pipeline) -> PictureWork:
            try:
                pipeline.predictor.require_scores()
            except UsageError as error:
                text = "this model outputs classes, not probabilities; export it with --output_op softmax"
                raise Refusal(422, text) from error
            headers = {"Content-Type": "application/zip"}
            return PictureWork(lambda found, _: probability_file(found, kind), needs_scores=True, headers=headers)

        return await service.answer(request, model, make_work)

    @app.post("/v1/shares", response_model=Shares, responses=_PROBLEMS, openapi_extra=_BODY)
    async def class_shares(request: Request, model: ModelName = None) -> Response:
        """The classes in the picture, and the share of the pixels that each one covers."""

        def make_work(pipeline: Pipeline) -> PictureWork:
            return PictureWork(lambda found, _: as_json(shares(found, pipeline.classes)), headers=_JSON_HEADERS)

        return await service.answer(request, model, make_work)

    @app.post("/v1/rle", response_model=Masks, responses=_PROBLEMS, openapi_extra=_BODY)
    async def run_lengths(request: Request, model: ModelName = None) -> Response:
        """The mask of each class as COCO's uncompressed run lengths."""

        def make_work(pipeline: Pipeline) -> PictureWork:
            return PictureWork(lambda found, _: as_json(masks(found, pipeline.classes)), headers=_JSON_HEADERS)

        return await service.answer(request, model, make_work)


def _add_information(app: FastAPI, service: Service) -> None:
    """Adds the web page, and the routes for models, health and metrics."""
    page = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")

    def digests(tag: str) -> str:
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        found = (base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts)
        return " ".join(f"'sha256-{digest}'" for digest in found)

    # Allows only the page's own script and style, by their digests.
    policy = (
        f"default-src 'none'; script-src {digests('script')}; style-src {digests('style')}; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    @app.get("/", response_class=HTMLResponse)
    async def web_page() -> HTMLResponse:
        """The web page for trying the service."""
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    @app.get("/v1/model", responses={404: _PROBLEMS[404]})
    async def describe_model(request: Request, model: ModelName = None) -> ModelDescription:
        """A model with its classes, and the limits of the service."""
        pipeline = service.find(model)
        request.state.model = pipeline.name
        predictor, settings, classes = pipeline.predictor, service.settings, pipeline.classes
        return ModelDescription(
            name=pipeline.name,
            version=paddle_dnl.__version__,
            backend=predictor.backend,
            input_shape=predictor.files.input_shape,
            max_batch=pipeline.max_batch,
            wrong_size=settings.wrong_size,
            tile=settings.tile,
            max_request_bytes=settings.max_request_bytes,
            max_pixels=settings.max_pixels,
            classes=[NamedClass(**classes.describe(number)) for number in range(len(classes.names))],
        )

    @app.get("/v1/models")
    async def model_names() -> list[str]:
        """Names of the models; the first one is the default."""
        return list(service.models)

    @app.get("/healthz", responses={503: {"model": Problem, "description": "The service cannot answer requests"}})
    async def health() -> Health:
        """200 while the service can answer requests."""
        if not service.ready:
            raise HTTPException(503, "the service is being stopped, or the thread of a model's backend has ended")
        return Health(status="ok")

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Count:
    """ASGI middleware that counts responses by route and status; bodies are streamed through."""

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
            # All unknown paths share one label, so that requests of random paths cannot create counters without limit.
            endpoint = getattr(scope.get("route"), "path", "other")
            model = scope.get("state", {}).get("model", "")
            self._metrics.answered(endpoint, model, status, time.perf_counter() - began)


def create_app(models: "Predictor | Mapping[str, Predictor]", settings: "Settings") -> FastAPI:
    """Creates the application.

    Args:
        models: name -> model, or one model, which gets the name `model`; each backend is called from one thread only.
        settings: see `Settings`.
    """
    service = Service(models if isinstance(models, Mapping) else {"model": models}, settings)

    @contextlib.asynccontextmanager
    async def lifespan(_):
        yield
        service.stop()
        logger.info("all requests are finished; the service stops")

    # Disables FastAPI's documentation pages, which load scripts from other hosts.
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
    add_kserve(app, service)

    app.add_middleware(Guard, settings=settings, token=read_token(settings.token_file))
    app.add_middleware(_Count, metrics=service.metrics)

    @app.exception_handler(RequestValidationError)
    async def wrong_parameter(request: Request, error: RequestValidationError) -> JSONResponse:
        text = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return error_response(request.url.path, 422, text)

    @app.exception_handler(HTTPException)
    async def wrong_address(request: Request, error: HTTPException) -> JSONResponse:
        return error_response(request.url.path, error.status_code, error.detail, error.headers)

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> JSONResponse:
        return error_response(request.url.path, refusal.status, refusal.text)

    return app
