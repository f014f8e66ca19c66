# SPDX-License-Identifier: Apache-2.0
"""Names that configurations and flags choose from. Imports nothing, so that `--help` is quick."""

# Averages over passes, as in the code of PaddleSeg, of mmsegmentation and DGMN2, and of the DNL authors.
AVERAGES = ("logits", "softmax", "official")
LARGEST_SEED = 2**32 - 1  # of NumPy
