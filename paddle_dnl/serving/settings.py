# SPDX-License-Identifier: Apache-2.0
"""Settings of the service: flags (`--port 8080`) and environment variables (`SERVING_PORT=8080`); a flag wins."""

import argparse
import itertools
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from paddle_dnl.deployment.model_names import NAME, name_from
from paddle_dnl.errors import UsageError

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, CliSettingsSource, NoDecode, SettingsConfigDict

PREFIX = "SERVING_"
# Deprecated name -> current name.
_RENAMED = {"engine": "backend"}


class Settings(BaseSettings):
    """Settings of the service."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid")

    # In the environment one string, NAME=DIR,NAME=DIR; several flags are joined to the same form.
    model: Annotated[list[str], NoDecode] = Field(
        description="exported folder or its deploy.yaml, a folder of exported folders, or NAME=DIR; can be repeated"
    )
    custom_imports: list[str] = Field(
        [], description='.py files and modules that define transforms of the model, as a JSON list such as ["mine.py"]'
    )
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0: all interfaces")
    allowed_hosts: list[str] = Field(
        [],
        description="host names that requests may use, as a JSON list; default: loopback names on loopback, else any",
    )
    allowed_origins: list[str] = Field(
        [], description='websites whose pages may use the service, as a JSON list such as ["https://a.example"]'
    )
    token_file: Path | None = Field(
        None, description="file with the token that requests must have (Authorization: Bearer TOKEN)"
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file of the certificate; with tls_key the service uses HTTPS"
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's private key")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0: a free one")
    backend: Literal["paddle", "onnxruntime", "openvino", "auto"] = Field("paddle", description="backend of the model")
    device: Literal["cpu", "gpu"] = Field("cpu", description="device of the model")
    cpu_threads: int | None = Field(
        None, ge=1, description="threads of the backend; default: OMP_NUM_THREADS, else the number of cores"
    )
    precision: Literal["fp32", "fp16", "bf16", "int8", "fastest"] = Field(
        "fp32",
        description="int8: after tools/quantize.py; fp16: for GPUs; fastest: the fastest one verified with images",
    )
    streams: int | None = Field(
        None, ge=1, description="openvino: batches or tiles that run concurrently, each with its share of the threads"
    )
    enable_mkldnn: bool = Field(False, description="use oneDNN; only if the export verified it")
    wrong_size: Literal["resize", "refuse"] | None = Field(
        None, description="fixed-size models: what to do with pictures of another size; default: see tile"
    )
    tile: Literal["auto", "never"] = Field(
        "auto", description="auto: overlapping tiles for pictures over 1.5 times the model's size; never: resize all"
    )
    max_request_bytes: int = Field(32_000_000, ge=1, description="maximum size of a request in bytes")
    max_pixels: int = Field(
        25_000_000, ge=1, description="maximum number of pixels of a picture, checked before decoding"
    )
    header_seconds: float = Field(10, gt=0, le=3600, description="time limit for the header of a request to arrive")
    body_seconds: float = Field(30, gt=0, le=86400, description="time limit for the body of a request to arrive")
    decode_seconds: float = Field(10, gt=0, le=3600, description="time limit for decoding one picture")
    request_seconds: float = Field(
        60, gt=0, le=86400, description="time limit from the arrival of the picture to the response"
    )
    queue_size: int = Field(64, ge=1, description="maximum number of admitted requests; others get status 429")
    max_connections: int = Field(
        512, ge=1, description="maximum number of open connections; others are closed immediately"
    )
    max_connections_per_client: int = Field(
        64, ge=0, description="maximum number of connections per address; 0: no limit, for use behind a proxy"
    )
    max_batch: int = Field(8, ge=1, description="maximum batch size, for models exported with a free batch size")
    batch_wait_ms: float = Field(5, ge=0, le=10_000, description="time that a batch waits for more pictures")
    workers: int = Field(
        2, ge=1, le=256, description="processes that decode pictures, and threads that encode responses"
    )
    stop_seconds: int = Field(60, ge=1, description="time limit for the admitted requests after SIGTERM")
    access_log: bool = Field(False, description="log one line per request")

    @field_validator("model", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Converts a path, or models separated by commas, to a list."""
        if not isinstance(value, str | Path):
            return value
        return re.split(rf",(?={NAME}=)", str(value))  # other commas are part of a path


def _explain(error: ValidationError) -> str:
    problems = []
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        given = "" if problem["type"] == "missing" else f", got {problem['input']!r}"
        problems.append(f"--{name} ({PREFIX}{name.upper()}): {problem['msg']}{given}")
    return "; ".join(problems)


def make_parser() -> argparse.ArgumentParser:
    """Returns a parser with the settings as flags, with defaults and limits in their help."""
    return CliSettingsSource(Settings, cli_prog_name=os.path.basename(sys.argv[0])).root_parser


def read_settings(argv: list[str]) -> Settings:
    """Reads the settings from flags and environment variables.

    Raises:
        UsageError: an invalid value, or no model.
    """
    for former, name in _RENAMED.items():
        argv = [re.sub(rf"^--{former}(?=$|=)", f"--{name}", word) for word in argv]
        # Added as the first flag, so that flags on the command line take precedence.
        if PREFIX + former.upper() in os.environ and PREFIX + name.upper() not in os.environ:
            argv = [f"--{name}={os.environ[PREFIX + former.upper()]}", *argv]
    try:
        return Settings(_cli_parse_args=argv, _cli_prog_name=os.path.basename(sys.argv[0]))
    except ValidationError as error:
        raise UsageError(_explain(error)) from error


def _split_paths(text: str) -> list[str]:
    """Splits several values that the command-line parser has joined with commas; a path may have commas of its own."""
    parts = text.split(",")
    exists = [Path(part).exists() or Path(re.sub(rf"^{NAME}=", "", part)).exists() for part in parts]
    return parts if any(exists) and not Path(text).exists() else [text]


def find_models(given: Iterable[str]) -> dict[str, Path]:
    """Returns the models that `--model` names: DIR, NAME=DIR, or a folder of exported folders in alphabetical order.

    A model without a given name has the name of its folder.

    Returns:
        Name -> exported folder (or deploy.yaml), in the order given.

    Raises:
        UsageError: two models have the same name.
    """
    from paddle_dnl.deployment.runtime.deploy_yaml import is_exported  # imports OpenCV, which --help does not need

    found: dict[str, Path] = {}
    for text in itertools.chain.from_iterable(map(_split_paths, given)):
        path, named = Path(text), re.fullmatch(rf"({NAME})=(.+)", text, re.S)
        if named and not path.exists():
            models = [(named[1], Path(named[2]))]
        else:
            inside = sorted(filter(is_exported, path.iterdir())) if path.is_dir() and not is_exported(path) else []
            models = []
            for exported in inside or [path]:
                folder = exported.resolve()
                folder = folder.parent if exported.suffix in (".yaml", ".yml") else folder
                models.append((name_from(folder.name), exported))
        for name, exported in models:
            if name in found:
                raise UsageError(f"--model: two models are called {name}; name them: --model NAME={exported}")
            found[name] = exported
    return found
