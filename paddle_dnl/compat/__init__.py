# SPDX-License-Identifier: Apache-2.0
"""Bridge to PaddleSeg: its components by name, checks of their arguments, and a plugin for PaddleSeg's own tools."""
