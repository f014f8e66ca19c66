# SPDX-License-Identifier: Apache-2.0
"""Names that configurations and flags choose from. Imports nothing, so that `--help` is quick."""

# Averages over passes, as in the code of PaddleSeg, of mmsegmentation and DGMN2, and of the DNL authors.
AVERAGES = ("logits", "softmax", "official")
# Precisions of exported models. Which of them a backend has depends on the device and the export.
EXPORTED_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fastest")
# Transforms that determine the values of the network's input; with other settings trained weights compute something else.
NORMALIZATIONS = ("Normalize", "SubtractMeanBGR")
CONFIG_NAME = "config.yml"  # the resolved configuration in the folder of a run or checkpoint
LARGEST_SEED = 2**32 - 1  # of NumPy
