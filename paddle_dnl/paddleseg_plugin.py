# SPDX-License-Identifier: Apache-2.0
"""`import paddle_dnl.paddleseg_plugin` makes this project's components available to PaddleSeg's own tools.

The public name of `paddle_dnl.compat.plugin`.
"""

from paddle_dnl.compat.plugin import ADDED, add_new, replace

__all__ = ["ADDED", "add_new", "replace"]
