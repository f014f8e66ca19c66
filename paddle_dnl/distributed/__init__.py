# SPDX-License-Identifier: Apache-2.0
"""Collective operations, the watchdog of ranks, and signals."""
