# SPDX-License-Identifier: Apache-2.0
"""Converts published weights of other projects to our models, by name; every tensor is accounted for."""

from paddle_dnl.weights.convert.converter import SOURCES, backbone_only, convert_state_dict, convert_with_report
from paddle_dnl.weights.convert.describe import looks_like
from paddle_dnl.weights.convert.mapping import ConversionError, ConversionReport, strip_module
from paddle_dnl.weights.convert.recognise import Recognised, recognise
from paddle_dnl.weights.convert.torch_files import read_torch_weights

__all__ = [
    "SOURCES",
    "ConversionError",
    "ConversionReport",
    "Recognised",
    "backbone_only",
    "convert_state_dict",
    "convert_with_report",
    "looks_like",
    "read_torch_weights",
    "recognise",
    "strip_module",
]
