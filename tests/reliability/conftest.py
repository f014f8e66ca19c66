# SPDX-License-Identifier: Apache-2.0
"""Every test in this folder carries the mark `reliability`, with which `make test-slow` runs all of them."""

import pytest


def pytest_itemcollected(item):
    item.add_marker(pytest.mark.reliability)
