# SPDX-License-Identifier: Apache-2.0
"""The training loop with checkpoints, options, sampling, AMP, EMA, logs and the NaN guard."""
