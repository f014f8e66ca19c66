# SPDX-License-Identifier: Apache-2.0
"""The ideas, one per file: attention, the disentangled non-local block, resizing. Knows only Paddle."""
