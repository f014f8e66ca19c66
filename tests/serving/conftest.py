# SPDX-License-Identifier: Apache-2.0
"""A tiny exported model for the tests of the service."""

from paddle_dnl import Predictor

import pytest
import serving_tools


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The exported folder."""
    return serving_tools.export(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def predictor(exported):
    """It, running in this process."""
    return Predictor(exported)
