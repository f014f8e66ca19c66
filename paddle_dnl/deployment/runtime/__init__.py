# SPDX-License-Identifier: Apache-2.0
"""Runs an exported folder: Predictor, backends, selection, pipeline, outputs."""
