# SPDX-License-Identifier: Apache-2.0
"""Requests that a machine makes up from /openapi.json: none may end in a server error or an answer that is not described."""

import numpy as np
import pytest
import schemathesis
import serving_tools
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import checks
from serving_tools import png

pytestmark = pytest.mark.slow

EXAMPLES = 150
_MODEL = "/v2/models/{name}"
_HEALTH = {"/v2", "/v2/health/live", "/v2/health/ready", *(f"{_MODEL}{end}" for end in ("", "/ready"))}
_HEALTH |= {f"{_MODEL}/versions/{{version}}{end}" for end in ("", "/ready")}
GETS = {"/v1/model", "/v1/models", "/healthz", "/metrics", "/"} | _HEALTH
PATHS = GETS | {"/v1/label", "/v1/overlay", "/v1/shares", "/v1/rle", "/v1/probabilities"}
PATHS |= {f"{_MODEL}/infer", f"{_MODEL}/versions/{{version}}/infer"}


@st.composite
def _uploads(draw) -> bytes:
    """A picture, whole or damaged, or no picture at all."""
    height, width, seed = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(0, 99))
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    content = bytearray(png(image, draw(st.sampled_from([".png", ".jpg", ".bmp", ".webp", ".tiff", ".ppm"]))))
    for _ in range(draw(st.integers(0, 3))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.none() | st.integers(0, len(content)))
    return draw(st.just(bytes(content[:cut])) | st.binary(max_size=200))


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = serving_tools.export(tmp_path_factory.mktemp("export"))
    with serving_tools.Running(folder, "--max_pixels", 100_000_000) as service:
        yield service
        assert service.client.get("/healthz").status_code == 200
        assert service.stop() == 0 and "Traceback" not in "".join(service.lines)


def _check_all(schema, **more) -> set[str]:
    """Every operation with made-up requests; returns the paths that were asked."""
    seen = set()
    wanted = [
        checks.not_a_server_error,
        schemathesis.specs.openapi.checks.status_code_conformance,
        schemathesis.specs.openapi.checks.content_type_conformance,
        schemathesis.specs.openapi.checks.response_schema_conformance,
    ]
    for found in schema.get_all_operations():
        operation = found.ok()
        if more["generation_mode"].value == "negative" and operation.method == "get":
            # Nothing about them can be wrong.
            continue

        @settings(
            max_examples=EXAMPLES, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy(**more))
        def ask(case):
            case.call_and_validate(checks=wanted)

        ask()
        seen.add(operation.path)
    return seen


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_made_up_requests(service, monkeypatch, mode):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for kind in ("image/png", "image/jpeg", "image/bmp", "image/tiff", "image/webp", "application/octet-stream"):
        schemathesis.openapi.media_type(kind, _uploads())
    schema = schemathesis.openapi.from_url(f"{service.address}/openapi.json")
    seen = _check_all(schema, generation_mode=mode)
    assert seen == (PATHS if mode.value == "positive" else PATHS - GETS)
