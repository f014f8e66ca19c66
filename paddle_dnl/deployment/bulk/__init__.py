# SPDX-License-Identifier: Apache-2.0
"""Predicts large numbers of pictures with many processes on one or many machines, scheduled by Ray Data."""
