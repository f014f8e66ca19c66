# SPDX-License-Identifier: Apache-2.0
"""Deployment: export to static graphs, runtime of exported folders, benchmark, bulk inference."""
