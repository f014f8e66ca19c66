# SPDX-License-Identifier: Apache-2.0
"""Settings of the service, by flag (`--port 8080`) or environment variable (`SERVING_PORT=8080`); a flag takes precedence."""

import argparse
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
# Former name, still accepted -> present name.
_RENAMED = {"engine": "backend"}


class Settings(BaseSettings):
    """Settings of the service."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid")

    # One string: NAME=DIR,NAME=DIR in the environment; several flags are joined to such a string, too.
    model: Annotated[list[str], NoDecode] = Field(
        description="exported folder or its deploy.yaml, a folder of exported folders, or NAME=DIR, also several times"
    )
    custom_imports: list[str] = Field(
        [], description='your .py files and modules with transforms of the model, as a JSON list such as ["mine.py"]'
    )
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    allowed_hosts: list[str] = Field(
        [], description="host names that requests may use, as a JSON list; empty: on loopback its own names, else any"
    )
    allowed_origins: list[str] = Field(
        [], description='other websites whose pages may use the service, as a JSON list such as ["https://a.example"]'
    )
    token_file: Path | None = Field(
        None, description="file with a secret that requests must bring (Authorization: Bearer)"
    )
    tls_certificate: Path | None = Field(None, description="PEM file; with tls_key the service speaks HTTPS")
    tls_key: Path | None = Field(None, description="PEM file of the certificate's private key")
    port: int = Field(8000, ge=0, le=65535, description="0 takes a free one")
    backend: Literal["paddle", "onnxruntime", "openvino", "auto"] = Field("paddle", description="what runs the model")
    device: Literal["cpu", "gpu"] = Field("cpu", description="where it runs")
    cpu_threads: int | None = Field(None, ge=1, description="default OMP_NUM_THREADS, else one per core")
    precision: Literal["fp32", "fp16", "bf16", "int8", "fastest"] = Field(
        "fp32", description="int8 after tools/quantize.py; fp16 for GPUs; fastest: what the folder's images verified"
    )
    streams: int | None = Field(
        None, ge=1, description="openvino: batches or tiles at the same time, each with its share of the threads"
    )
    enable_mkldnn: bool = Field(False, description="oneDNN; only where the export verified it")
    wrong_size: Literal["resize", "refuse"] | None = Field(
        None, description="pictures of another size than a fixed-size model takes; default: see tile"
    )
    tile: Literal["auto", "never"] = Field(
        "auto", description="overlapping tiles for pictures over 1.5 times the model's size; else all are resized"
    )
    max_request_bytes: int = Field(32_000_000, ge=1, description="larger requests are refused")
    max_pixels: int = Field(25_000_000, ge=1, description="larger pictures are refused before they are decoded")
    header_seconds: float = Field(10, gt=0, le=3600, description="for the header of a request to arrive")
    body_seconds: float = Field(30, gt=0, le=86400, description="for the body of a request to arrive")
    decode_seconds: float = Field(10, gt=0, le=3600, description="for decoding one picture")
    request_seconds: float = Field(60, gt=0, le=86400, description="from the arrived picture to the answer")
    queue_size: int = Field(64, ge=1, description="admitted requests at once; more are answered with 429")
    max_connections: int = Field(512, ge=1, description="open connections; more are closed at once")
    max_connections_per_client: int = Field(
        64, ge=0, description="of one address; 0: no limit, as behind a proxy, where all come from one"
    )
    max_batch: int = Field(8, ge=1, description="pictures per run, for models exported with a free batch")
    batch_wait_ms: float = Field(5, ge=0, le=10_000, description="how long a batch waits for more pictures")
    workers: int = Field(2, ge=1, le=256, description="processes that decode pictures, and threads that write answers")
    stop_seconds: int = Field(60, ge=1, description="after SIGTERM, for the admitted requests")
    access_log: bool = Field(False, description="one line per request")

    @field_validator("model", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """Converts a path, or models joined by commas, to a list."""
        if not isinstance(value, str | Path):
            return value
        return re.split(rf",(?={NAME}=)", str(value))  # other commas belong to a path


def _explain(error: ValidationError) -> str:
    problems = []
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else "settings"
        given = "" if problem["type"] == "missing" else f", got {problem['input']!r}"
        problems.append(f"--{name} ({PREFIX}{name.upper()}): {problem['msg']}{given}")
    return "; ".join(problems)


def make_parser() -> argparse.ArgumentParser:
    """The settings as flags, with defaults and limits in their help."""
    return CliSettingsSource(Settings, cli_prog_name=os.path.basename(sys.argv[0])).root_parser


def read_settings(argv: list[str]) -> Settings:
    """Settings from flags and environment.

    Raises:
        UsageError: a value that does not fit, or no model.
    """
    for former, name in _RENAMED.items():
        argv = [re.sub(rf"^--{former}(?=$|=)", f"--{name}", word) for word in argv]
        # As the first flag, so that a flag on the command line takes precedence.
        if PREFIX + former.upper() in os.environ and PREFIX + name.upper() not in os.environ:
            argv = [f"--{name}={os.environ[PREFIX + former.upper()]}", *argv]
    try:
        return Settings(_cli_parse_args=argv, _cli_prog_name=os.path.basename(sys.argv[0]))
    except ValidationError as error:
        raise UsageError(_explain(error)) from error


def find_models(given: Iterable[str]) -> dict[str, Path]:
    """The models that `--model` names, as DIR, NAME=DIR or a folder of exported folders.

    An exported folder without a given name is named after the folder. A folder that contains exported folders stands for all of
    them, in the order of their names.

    Returns:
        Name -> exported folder (or deploy.yaml), in the order given.

    Raises:
        UsageError: two models have the same name.
    """
    from paddle_dnl.deployment.runtime.deploy_yaml import is_exported  # not for --help: it imports OpenCV

    found: dict[str, Path] = {}
    for text in given:
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
