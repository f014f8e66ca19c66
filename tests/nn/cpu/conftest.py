# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests of layers that work in strips of rows."""

from paddle_dnl.nn.cpu import row_strips

import pytest


@pytest.fixture(params=["whole", "strips"])
def strips(request, monkeypatch):
    """Runs a test twice: convolutions as usual, and in the narrowest strips."""
    if request.param == "strips":
        monkeypatch.setattr(row_strips, "UNFOLDED_LIMIT", 1)
