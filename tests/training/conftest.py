# SPDX-License-Identifier: Apache-2.0
"""What tests of training share."""

import logging

from paddle_dnl.log import logger

import pytest


@pytest.fixture
def said():
    """Gives the log's text so far."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    yield lambda: "\n".join(lines)
    logger.removeHandler(handler)
