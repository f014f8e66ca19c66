# SPDX-License-Identifier: Apache-2.0
"""What tests of training share."""

import logging
from types import SimpleNamespace

from paddle_dnl.log import logger

import pytest
from paddle.amp import grad_scaler


@pytest.fixture
def said():
    """Gives the log's text so far."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    yield lambda: "\n".join(lines)
    logger.removeHandler(handler)


@pytest.fixture
def on_gpu(monkeypatch):
    """The scaler believes that it is on a GPU, inside float16 autocast; its kernels run on the CPU as well."""
    place = SimpleNamespace(is_gpu_place=lambda: True, is_xpu_place=lambda: False, is_custom_place=lambda: False)
    monkeypatch.setattr(grad_scaler, "_dygraph_tracer", lambda: SimpleNamespace(_expected_place=place))
    # Paddle switches a scaler off for good when the last autocast was not float16.
    monkeypatch.setattr(grad_scaler, "amp_global_state", lambda: SimpleNamespace(amp_dtype="float16"))
