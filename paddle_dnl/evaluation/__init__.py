# SPDX-License-Identifier: Apache-2.0
"""Inference modes (whole, slide, TTA), metrics, scores and reports."""
