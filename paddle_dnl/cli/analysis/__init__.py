# SPDX-License-Identifier: Apache-2.0
"""Command lines that analyze models and runs: attention maps, reports, multiply-accumulates."""
