# SPDX-License-Identifier: Apache-2.0
"""Published weights of other projects as weights of our models, by name and with complete accounting."""

from paddle_dnl.weights.convert.converter import SOURCES, convert_state_dict, convert_with_report
from paddle_dnl.weights.convert.describe import looks_like
from paddle_dnl.weights.convert.mapping import ConversionError, ConversionReport
from paddle_dnl.weights.convert.torch_files import read_torch_weights

__all__ = [
    "SOURCES",
    "ConversionError",
    "ConversionReport",
    "convert_state_dict",
    "convert_with_report",
    "looks_like",
    "read_torch_weights",
]
