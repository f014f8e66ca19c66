# SPDX-License-Identifier: Apache-2.0
"""Progress that is redirected into a file still says how far it is."""

import logging

from paddle_dnl import log

import pytest


@pytest.mark.parametrize(
    "others, expected",
    [(None, "evaluate: 2 of 10 in 32 s, about 128 s left"), (3, "evaluate: 5 of 10 in 32 s, about 32 s left")],
)
def test_lines_with_the_rest_of_the_time(monkeypatch, others, expected):
    """Also where others do a part of the work."""
    lines, now = [], [0.0]
    reached = None if others is None else lambda: round(now[0] / 16) + others
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    log.logger.addHandler(handler)
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    try:
        for _ in log.progress(range(10), "evaluate", reached=reached):
            now[0] += 16
    finally:
        log.logger.removeHandler(handler)
    assert lines[0] == expected and len(lines) == 4
