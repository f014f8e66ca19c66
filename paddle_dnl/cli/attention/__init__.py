# SPDX-License-Identifier: Apache-2.0
"""Command lines of `paddle-dnl attention ...`."""
