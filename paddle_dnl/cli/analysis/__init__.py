# SPDX-License-Identifier: Apache-2.0
"""Command lines that look at models and runs: attention maps, reports, multiply-accumulates."""
