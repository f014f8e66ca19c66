# SPDX-License-Identifier: Apache-2.0
"""Inference with an exported model: predictor, backends, backend selection, pipeline and output files."""
