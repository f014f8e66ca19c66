# SPDX-License-Identifier: Apache-2.0
"""The bridge to PaddleSeg: its components by name, refusals of harmful arguments, a plug-in for its own tools."""
