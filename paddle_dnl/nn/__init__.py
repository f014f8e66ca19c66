# SPDX-License-Identifier: Apache-2.0
"""Layers, one idea per file: attention, the disentangled non-local block, resizing. Depends on Paddle only."""
