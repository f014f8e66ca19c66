# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol (KServe v2) over HTTP: health, metadata, and inference with tensors as JSON or binary.

As with Triton, the model's input is preprocessed, float32 `[N, C, H, W]`; its output is class numbers or scores.
"""

import json
from typing import TYPE_CHECKING, Annotated, Any

import paddle_dnl
from paddle_dnl.serving.pipeline import Pipeline, TensorWork
from paddle_dnl.serving.readers import Asked, TensorSpec
from paddle_dnl.serving.refusal import KSERVE, Refusal

import numpy as np
from fastapi import FastAPI, Header, Path, Request, Response
from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from paddle_dnl.serving.service import Service

_HEADER = "Inference-Header-Content-Length"
_VERSION = "1"


class KserveError(BaseModel):
    """Body of every error."""

    error: str


class ServerMetadata(BaseModel):
    """Name, version and extensions of the server."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """Whether the server is running."""

    live: bool


class Ready(BaseModel):
    """Whether the server answers requests."""

    ready: bool


class ModelReady(BaseModel):
    """Whether a model answers requests."""

    name: str
    ready: bool


class TensorMetadata(BaseModel):
    """A tensor of a model; the shape has -1 for free axes."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A model's tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class OutputTensor(BaseModel):
    """An output: `data` in JSON, or `parameters.binary_data_size` bytes after the JSON."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] = Field(default_factory=dict)
    data: list[float] | None = None


class InferAnswer(BaseModel):
    """Response of an inference request."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


_TENSOR = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"type": "string"},
        "datatype": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}},
    },
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": {"type": "object"},
        "inputs": {"type": "array", "items": _TENSOR},
        "outputs": {"type": "array", "items": {"type": "object"}},
    },
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "description": f"JSON, or JSON of {_HEADER} bytes followed by the tensor's numbers",
        "content": {"application/json": {"schema": _REQUEST}, "application/octet-stream": _BINARY},
    }
}
_WRONG = {
    400: "Invalid request",
    401: "The token is missing or wrong",
    403: "A page of another website",
    404: "No such model or version",
    408: "The tensor did not arrive in time",
    413: "Too many bytes, pixels or numbers",
    415: "A compressed body",
    421: "A host name that is not served",
    422: "Names, shapes, datatypes or numbers that the model does not accept",
    429: "The queue is full",
    500: "The model failed",
    503: "The service is being stopped",
    504: "Not finished in time",
}
_ERRORS = {status: {"model": KserveError, "description": text} for status, text in _WRONG.items()}
_NAME = Path(description="name of the model")
# Only for the OpenAPI description; `_make_work` parses the header, to report errors in one line.
_Length = Annotated[str | None, Header(alias=_HEADER, description="bytes of JSON before the binary numbers")]
_NUMBER = Path(description="version of the model, always 1")


def _only(*statuses: int) -> dict:
    return {status: _ERRORS[status] for status in (401, 403, 421, *statuses)}


def _require_version(version: str) -> None:
    if version != _VERSION:
        raise Refusal(404, f"there is no version {version[:20]!r}; the only version is {_VERSION}")


def _make_work(request: Request, pipeline: Pipeline, version: str) -> TensorWork:
    """Makes the work of an inference request; its `finish` raises Refusal for numbers that JSON cannot represent.

    Raises:
        Refusal: another version, a compressed body, or a header that is not a number.
    """
    _require_version(version)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refusal(415, "compressed bodies are not supported (Content-Encoding)")
    length = request.headers.get(_HEADER)
    if length is not None and not (length.isascii() and length.isdigit() and len(length) < 12):
        raise Refusal(400, f"{_HEADER}: expected a number of bytes")

    def finish(output: np.ndarray, spec: TensorSpec, asked: Asked) -> bytes:
        tensor: dict = {"name": spec.name, "datatype": spec.datatype, "shape": list(output.shape)}
        answer = {"model_name": pipeline.name, "model_version": _VERSION, "outputs": [tensor]}
        if asked.id is not None:
            answer["id"] = asked.id
        if not asked.binary:
            tensor["data"] = output.ravel().tolist()
            try:
                return json.dumps(answer, separators=(",", ":"), allow_nan=False).encode()
            except ValueError as error:
                raise Refusal(
                    422, "the output has numbers that JSON cannot represent; request a binary output"
                ) from error
        numbers = np.ascontiguousarray(output).astype(output.dtype.newbyteorder("<"), copy=False).tobytes()
        tensor["parameters"] = {"binary_data_size": len(numbers)}
        header = json.dumps(answer, separators=(",", ":")).encode()
        work.headers |= {"Content-Type": "application/octet-stream", _HEADER: str(len(header))}
        return header + numbers

    work = TensorWork(finish, length and int(length), headers={"Content-Type": "application/json"})
    return work


def _describe(spec: TensorSpec) -> TensorMetadata:
    return TensorMetadata(name=spec.name, datatype=spec.datatype, shape=list(spec.shape))


def add_kserve(app: FastAPI, service: "Service") -> None:
    """Adds the routes below `/v2`."""
    _add_health(app, service)

    @app.get(f"{KSERVE}/models/{{name}}", responses=_only(404, 500))
    async def metadata(request: Request, name: Annotated[str, _NAME]) -> ModelMetadata:
        """Names, datatypes and shapes of the graph's tensors."""
        pipeline = service.find(name)
        request.state.model = name
        graph_input, graph_output = await pipeline.tensors()
        return ModelMetadata(
            name=name,
            versions=[_VERSION],
            platform=f"paddle_dnl_{pipeline.predictor.backend}",
            inputs=[_describe(graph_input)],
            outputs=[_describe(graph_output)],
        )

    @app.get(f"{KSERVE}/models/{{name}}/versions/{{version}}", responses=_only(404, 500))
    async def metadata_of_version(
        request: Request, name: Annotated[str, _NAME], version: Annotated[str, _NUMBER]
    ) -> ModelMetadata:
        """The same with a version."""
        _require_version(version)
        return await metadata(request, name)

    async def run(request: Request, name: str, version: str = _VERSION) -> Response:
        return await service.answer(request, name, lambda pipeline: _make_work(request, pipeline, version))

    responses = _ERRORS | {200: {"model": InferAnswer, "content": {"application/octet-stream": _BINARY}}}
    options = {"response_class": Response, "responses": responses, "openapi_extra": _BODY}

    @app.post(f"{KSERVE}/models/{{name}}/infer", **options)
    async def infer(request: Request, name: Annotated[str, _NAME], length: _Length = None) -> Response:
        """Runs the graph on one input tensor."""
        return await run(request, name)

    @app.post(f"{KSERVE}/models/{{name}}/versions/{{version}}/infer", **options)
    async def infer_version(
        request: Request, name: Annotated[str, _NAME], version: Annotated[str, _NUMBER], length: _Length = None
    ) -> Response:
        """The same with a version."""
        return await run(request, name, version)


def _add_health(app: FastAPI, service: "Service") -> None:
    """Adds the routes for the server's metadata, liveness and readiness."""

    @app.get(KSERVE, responses=_only())
    async def server() -> ServerMetadata:
        """Name and version of the server, and the protocol extensions that it supports."""
        return ServerMetadata(name="paddle_dnl", version=paddle_dnl.__version__, extensions=["binary_tensor_data"])

    @app.get(f"{KSERVE}/health/live")
    async def live() -> Live:
        """200 while the process responds."""
        return Live(live=True)

    @app.get(f"{KSERVE}/health/ready", responses=_only(503))
    async def ready() -> Ready:
        """200 while all models can answer requests."""
        if not service.ready:
            raise Refusal(503, "the service is being stopped, or the thread of a model's backend has ended")
        return Ready(ready=True)

    @app.get(f"{KSERVE}/models/{{name}}/ready", responses=_only(404, 503))
    async def model_ready(name: Annotated[str, _NAME]) -> ModelReady:
        """200 while the model can answer requests."""
        if not service.is_ready(service.find(name)):
            raise Refusal(503, "the service is being stopped, or the thread of the model's backend has ended")
        return ModelReady(name=name, ready=True)

    @app.get(f"{KSERVE}/models/{{name}}/versions/{{version}}/ready", responses=_only(404, 503))
    async def version_ready(name: Annotated[str, _NAME], version: Annotated[str, _NUMBER]) -> ModelReady:
        """The same with a version."""
        _require_version(version)
        return await model_ready(name)
