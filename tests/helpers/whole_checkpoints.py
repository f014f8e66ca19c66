# SPDX-License-Identifier: Apache-2.0
"""Checkpoints saved and loaded in one call, which a training does in two: it copies and reads before it writes and restores."""

from paddle_dnl.training.checkpoints import checkpoint, restoring
from paddle_dnl.training.checkpoints.snapshot import take_snapshot


def save_checkpoint(folder, **state):
    """Writes a complete checkpoint; `state` as of `take_snapshot`."""
    return checkpoint.write_snapshot(folder, take_snapshot(**state))


def load_checkpoint(folder, *, model, optimizer, ema=None, fresh_optimizer=False) -> dict:
    """Reads and restores; returns the plain states."""
    contents = restoring.read(
        folder, optimizer=optimizer, with_average=ema is not None, fresh_optimizer=fresh_optimizer
    )
    return restoring.restore(contents, model=model, optimizer=optimizer, ema=ema)
