# SPDX-License-Identifier: Apache-2.0
"""Progress that is redirected into a file still says how far it is."""

import logging
import re
import threading
import time

from paddle_dnl import log

import pytest


@pytest.fixture
def lines(monkeypatch):
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    log.logger.addHandler(handler)
    monkeypatch.setattr(log, "_LINE_SECONDS", 0.1)
    yield found
    log.logger.removeHandler(handler)


def test_lines_with_the_rest_of_the_time(lines, monkeypatch):
    seconds = iter([100.0, *[148.0] * 999])
    monkeypatch.setattr(log.time, "monotonic", lambda: next(seconds))
    for item in log.progress(range(10), "evaluate"):
        if item == 3:
            while not lines:  # no item ends meanwhile
                time.sleep(0.01)
    assert lines[0] == "evaluate: 3 of 10 in 48 s, about 112 s left"


def test_lines_of_work_that_others_share(lines, monkeypatch):
    seconds = iter([100.0, *[148.0] * 999])
    monkeypatch.setattr(log.time, "monotonic", lambda: next(seconds))
    for item in log.progress(range(4), "evaluate", 10, lambda: 5):
        if item == 3:
            while not lines:
                time.sleep(0.01)
    assert lines[0] == "evaluate: 5 of 10 in 48 s, about 48 s left"


def test_no_line_of_what_is_quick_or_has_ended(lines):
    assert list(log.progress(range(1000), "check")) == list(range(1000)) and not lines
    unfinished = log.progress(range(10), "evaluate")
    next(unfinished)
    unfinished.close()
    time.sleep(0.3)
    assert not lines and not [t for t in threading.enumerate() if t.name.startswith("progress")]


def test_an_item_that_takes_long_is_no_silence(lines):
    for item in log.progress(iter(range(2)), "evaluate"):
        if item == 0:
            while len(lines) < 2:
                time.sleep(0.01)
    assert re.fullmatch(r"evaluate: 0 in \d+ s", lines[1]), lines
