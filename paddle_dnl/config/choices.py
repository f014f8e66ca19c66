# SPDX-License-Identifier: Apache-2.0
"""Names that configurations and flags choose from. Imports nothing, so that `--help` is quick."""

# Averages of the scores of several passes over an image, as in the code of PaddleSeg, of mmsegmentation and DGMN2, of the DNL authors.
AVERAGES = ("logits", "softmax", "official")
