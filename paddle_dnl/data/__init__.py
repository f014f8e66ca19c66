# SPDX-License-Identifier: Apache-2.0
"""Datasets, transforms and batches; checks and statistics of datasets; pictures of labels."""
