"""The training loop and what it stands on: checkpoints, options, sampling, AMP, EMA, logs, NaN guard."""
