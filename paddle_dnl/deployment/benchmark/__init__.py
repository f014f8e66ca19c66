# SPDX-License-Identifier: Apache-2.0
"""Measures speed and memory of an exported model in each backend, each setting in its own process."""
