# SPDX-License-Identifier: Apache-2.0
"""Generated street scenes with the 19 Cityscapes classes, for tests and the quick start."""

from paddle_dnl.data.scenes.scene import draw_scene

__all__ = ["draw_scene"]
