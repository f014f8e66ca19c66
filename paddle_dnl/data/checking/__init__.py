# SPDX-License-Identifier: Apache-2.0
"""Check of a dataset before its use: every file is read once, by all ranks together, and remembered while it does not change."""
