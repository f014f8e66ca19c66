# SPDX-License-Identifier: Apache-2.0
"""Names that configurations and flags choose from. Imports nothing, so that `--help` is quick."""

# How several passes over an image become one: the rules of PaddleSeg, of mmsegmentation and DGMN2, of the DNL authors.
AVERAGES = ("logits", "softmax", "official")
