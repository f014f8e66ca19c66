# SPDX-License-Identifier: Apache-2.0
"""Deployment: export to static graphs, the runtime of exported folders, their benchmark."""
