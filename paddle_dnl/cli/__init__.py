# SPDX-License-Identifier: Apache-2.0
"""Command lines: argument parsing of all programs."""
