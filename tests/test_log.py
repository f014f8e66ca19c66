# SPDX-License-Identifier: Apache-2.0
"""Progress that is redirected into a file still says how far it is."""

import logging

from paddle_dnl import log


def test_lines_with_the_rest_of_the_time(monkeypatch):
    lines, now = [], [0.0]
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    log.logger.addHandler(handler)
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    try:
        for _ in log.progress(range(10), "evaluate"):
            now[0] += 16
    finally:
        log.logger.removeHandler(handler)
    assert lines[0] == "evaluate: 2 of 10 in 32 s, about 128 s left" and len(lines) == 4
