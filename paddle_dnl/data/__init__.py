# SPDX-License-Identifier: Apache-2.0
"""Datasets, transforms and batches; checks and statistics of datasets; reading of images; drawing of label maps."""
