# SPDX-License-Identifier: Apache-2.0
"""Analysis of attention: maps of single queries, and statistics of maps against labels."""
