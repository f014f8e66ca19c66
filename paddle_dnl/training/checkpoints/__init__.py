# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: writing, verifying and restoring them, and the folder of a run."""
