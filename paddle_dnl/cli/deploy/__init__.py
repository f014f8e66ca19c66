# SPDX-License-Identifier: Apache-2.0
"""Command lines for exported models: benchmark, quantize, serve."""
