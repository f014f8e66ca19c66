# SPDX-License-Identifier: Apache-2.0
"""Readers of annotation formats. Each returns the samples of a source as `paddle_dnl.data.prepare.annotations.Sample`."""
