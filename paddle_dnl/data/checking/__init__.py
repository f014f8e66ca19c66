# SPDX-License-Identifier: Apache-2.0
"""Check of a dataset before training: each file is read once, divided among the ranks, and again only after it has changed."""
