# SPDX-License-Identifier: Apache-2.0
"""The training loop and what it stands on: checkpoints, options, sampling, AMP, EMA, logs, NaN guard."""
