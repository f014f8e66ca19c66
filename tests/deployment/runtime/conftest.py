# SPDX-License-Identifier: Apache-2.0
"""An exported folder with an ONNX file, for the tests of backends."""

import pytest
from tiny_onnx import color_net


@pytest.fixture
def folder(exported, tmp_path, monkeypatch):
    """A copy with a verified ONNX file that gives classes, and caches of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copy = tmp_path / "export"
    copy.mkdir()
    for path in exported.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    color_net(copy)
    return copy
