# SPDX-License-Identifier: Apache-2.0
"""What trainings in half precision are judged by, on a device (`check`) and simulated (`simulation`)."""

import numpy as np

LARGEST_FLOAT16 = 65504.0


def end_of(losses: list[float]) -> float:
    """Mean loss of the last fifth of the steps."""
    return float(np.mean(losses[-max(1, len(losses) // 5) :]))
