# SPDX-License-Identifier: Apache-2.0
"""Records of a run: log lines, curves, pictures, differences from the published recipe."""
