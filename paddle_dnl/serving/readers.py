# SPDX-License-Identifier: Apache-2.0
"""Readers decode the bytes of a request. A reader is sent to the decoding process together with the bytes."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from paddle_dnl.files.reading import parse_json
from paddle_dnl.serving.refusal import Refusal

import numpy as np

if TYPE_CHECKING:
    from paddle_dnl.data.images.image_format import ImageFormat

# Bytes per pixel for decoding: two copies (one rotated) of three channels of 16 bits, doubled as a margin.
_MEMORY_PER_PIXEL = 24
# Bytes per pixel and channel for many channels: the file, its values of up to 8 bytes, and two copies as float32.
_MEMORY_PER_VALUE = 24

# Data types: names of the Open Inference Protocol -> names of NumPy.
DATATYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
}  # fmt: skip


@dataclass(frozen=True)
class PictureReader:
    """Reads a picture file.

    Attributes:
        image_format: number of channels and scale.
        max_pixels: see `paddle_dnl.data.images.untrusted.require_bounded`.
    """

    image_format: "ImageFormat"
    max_pixels: int

    @property
    def memory(self) -> int:
        """Maximum number of bytes needed to read one picture."""
        per_pixel = _MEMORY_PER_PIXEL if self.image_format.is_plain else _MEMORY_PER_VALUE * self.image_format.channels
        return per_pixel * self.max_pixels

    def read(self, content: bytes) -> tuple[np.ndarray, None]:
        """Decodes a picture to uint8 BGR `[H, W, 3]`, gray `[H, W]`, or channels `[H, W, C]`.

        Raises:
            DataError: the picture cannot be read, see `ImageFormat.decode`.
        """
        data = np.frombuffer(content, np.uint8)
        picture = self.image_format.decode(data, "picture", max_pixels=self.max_pixels)
        return np.ascontiguousarray(picture), None


class TensorSpec(NamedTuple):
    """A tensor of the graph: name, NumPy's name of the data type, shape with -1 for free axes."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def datatype(self) -> str:
        """The Open Inference Protocol's name of the data type."""
        return next((name for name, dtype in DATATYPES.items() if dtype == self.dtype), self.dtype.upper())


class Asked(NamedTuple):
    """Options of an inference request: its ID, and whether the response is binary."""

    id: str | None
    binary: bool


@dataclass(frozen=True)
class TensorReader:
    """Reads an inference request of the Open Inference Protocol: JSON, or JSON followed by binary numbers.

    Attributes:
        input, output: tensors of the graph; the input is float32 `[N, C, H, W]`.
        max_pixels: maximum N x H x W.
        header_length: bytes of JSON before the binary numbers; None if the whole body is JSON.
    """

    input: TensorSpec
    output: TensorSpec
    max_pixels: int
    header_length: int | None = None

    def read(self, content: bytes) -> tuple[np.ndarray, Asked]:
        """Returns the input, float32 `[N, C, H, W]`, and the options of the request.

        Raises:
            Refusal: 400 for an invalid request, 413 for too many pixels, 422 for names, shapes and numbers that the
                graph does not accept.
        """
        length = len(content) if self.header_length is None else self.header_length
        if length > len(content):
            raise Refusal(400, f"Inference-Header-Content-Length is {length}, but the body has {len(content)} bytes")
        try:
            request = parse_json(content[:length])
        except ValueError as error:
            raise Refusal(400, f"the request is not JSON: {error}") from error
        inputs = request.get("inputs") if isinstance(request, dict) else None
        if not isinstance(inputs, list) or not all(isinstance(item, dict) for item in inputs):
            raise Refusal(400, "the request has no list `inputs` of JSON objects")
        names = [item.get("name") for item in inputs]
        if names != [self.input.name]:
            raise Refusal(422, f"inputs: expected only {self.input.name}, got {str(names)[:200]}")
        asked = self._asked(request)
        shape = self._shape(inputs[0])
        return self._numbers(inputs[0], shape, content[length:]), asked

    def _asked(self, request: dict) -> Asked:
        parameters, name = _mapping(request, "parameters"), request.get("id")
        if name is not None and not (isinstance(name, str) and len(name) <= 1000):
            raise Refusal(400, "id: expected a string of at most 1000 characters")
        binary = parameters.get("binary_data_output", False)
        outputs = request.get("outputs", [])
        if not isinstance(outputs, list) or not all(isinstance(item, dict) for item in outputs):
            raise Refusal(400, "outputs: expected a list of JSON objects")
        for item in outputs:
            if item.get("name") != self.output.name or len(outputs) > 1:
                raise Refusal(422, f"outputs: the model has only {self.output.name}")
            wanted = _mapping(item, "parameters")
            for unknown in ("classification", "shared_memory_region"):
                if wanted.get(unknown):
                    raise Refusal(422, f"outputs: {unknown} is not supported")
            binary = wanted.get("binary_data", binary)
        return Asked(name, binary is True)

    def _shape(self, item: dict) -> tuple[int, ...]:
        """Returns the shape in the request after comparing it with the graph's."""
        shape, wanted = item.get("shape"), self.input.shape
        if item.get("datatype") != self.input.datatype:
            raise Refusal(
                422,
                f"{self.input.name}: the datatype must be {self.input.datatype}, got {str(item.get('datatype'))[:50]}",
            )
        fits = isinstance(shape, list) and len(shape) == len(wanted)
        fits = fits and all(type(v) is int and v > 0 and size in (-1, v) for v, size in zip(shape, wanted, strict=True))
        if not fits:
            raise Refusal(
                422, f"{self.input.name}: the shape must be {list(wanted)} (-1: any size), got {str(shape)[:100]}"
            )
        pixels = shape[0] * math.prod(shape[2:])
        if pixels > self.max_pixels:
            raise Refusal(413, f"{pixels} pixels (N x H x W) exceed the limit of {self.max_pixels} (max_pixels)")
        return tuple(shape)

    def _numbers(self, item: dict, shape: tuple[int, ...], binary: bytes) -> np.ndarray:
        name, dtype, count = self.input.name, np.dtype(self.input.dtype), math.prod(shape)
        parameters = _mapping(item, "parameters")
        if "shared_memory_region" in parameters:
            raise Refusal(422, f"{name}: shared_memory_region is not supported")
        size = parameters.get("binary_data_size")
        if (size is None) == (self.header_length is not None):
            raise Refusal(400, f"{name}: binary_data_size and Inference-Header-Content-Length must be given together")
        if size is not None:
            if size != len(binary) or size != count * dtype.itemsize:
                raise Refusal(
                    422,
                    f"{name}: {count} numbers of {self.input.datatype} are {count * dtype.itemsize} bytes; binary_data_size "
                    f"is {str(size)[:50]}, the body has {len(binary)}",
                )
            numbers = np.frombuffer(binary, dtype.newbyteorder("<")).astype(dtype, copy=False)
        else:
            try:
                numbers = np.asarray(item.get("data"))
            except ValueError as error:  # lists of different lengths
                raise Refusal(422, f"{name}: data: {str(error)[:200]}") from error
            if numbers.dtype.kind not in "fiu":
                raise Refusal(422, f"{name}: data: expected numbers")
            if numbers.size != count:
                raise Refusal(422, f"{name}: data: the shape requires {count} numbers, got {numbers.size}")
            with np.errstate(over="ignore"):
                numbers = numbers.astype(dtype)
        if not np.isfinite(numbers).all():
            raise Refusal(422, f"{name}: contains infinite numbers or NaN")
        return np.ascontiguousarray(numbers.reshape(shape))


def _mapping(request: dict, key: str) -> dict:
    """Returns `request[key]`; an empty dictionary if the key is missing.

    Raises:
        Refusal: 400; the value is not a JSON object.
    """
    value = request.get(key, {})
    if not isinstance(value, dict):
        raise Refusal(400, f"{key}: expected a JSON object")
    return value
