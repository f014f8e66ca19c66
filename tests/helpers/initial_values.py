# SPDX-License-Identifier: Apache-2.0
"""What distribution a parameter was drawn from. NumPy only: used with and without Paddle and PyTorch."""

import math
from pathlib import Path

import numpy as np

STORED = Path(__file__).resolve().parents[1] / "data" / "golden" / "initialisation.json"
# Numbers looked at for the kind, and how few say nothing about it.
_SAMPLE, _TOO_FEW = 4000, 100
_DISTRIBUTION = {
    "normal": lambda x: (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
    "uniform": lambda x: np.clip((x / math.sqrt(3) + 1) / 2, 0, 1),
}


def _distance(values: np.ndarray, kind: str) -> float:
    """Kolmogorov-Smirnov distance of numbers with unit variance from the distribution of that kind."""
    expected = _DISTRIBUTION[kind](np.sort(values))
    steps = np.arange(len(values) + 1) / len(values)
    return float(max((steps[1:] - expected).max(), (expected - steps[:-1]).max()))


def describe(values: np.ndarray) -> tuple[str, float]:
    """(`constant`, value), (`normal` | `uniform`, root mean square), or (`unknown`, root mean square) if there are few."""
    values = np.asarray(values, "float64").ravel()
    if (values == values[0]).all() and (len(values) > 1 or values[0] in (0, 1)):
        return "constant", float(values[0])
    spread = float(np.sqrt((values**2).mean()))
    if len(values) < _TOO_FEW:
        return "unknown", spread
    sample = np.random.default_rng(0).choice(values, min(len(values), _SAMPLE), replace=False) / spread
    return min(_DISTRIBUTION, key=lambda kind: _distance(sample, kind)), spread


def difference(values: np.ndarray, kind: str, scale: float, known_from: float = math.inf) -> str:
    """Why these numbers are not from such a distribution; empty if they may be.

    Args:
        values: a parameter.
        kind: `constant`, `normal` or `uniform` around 0, or `unknown`.
        scale: the constant, or the root mean square.
        known_from: how many numbers `scale` was estimated from.
    """
    values = np.asarray(values, "float64").ravel()
    found, spread = describe(values)
    if kind == "constant" or found == "constant":
        return "" if (kind, scale) == (found, spread) else f"{found} {spread:.5f}, not {kind} {scale:.5f}"
    if "unknown" not in (kind, found) and kind != found:
        return f"{found}, not {kind}"
    count = min(len(values), known_from)
    # Of the root mean square, in units of itself, at five standard errors; generous for the smallest.
    allowed = 5 * math.sqrt(2) / math.sqrt(2 * count) if count >= 10 else math.inf
    if abs(spread / scale - 1) > allowed:
        return f"spread {spread:.5f}, not {scale:.5f} (within {allowed:.1%})"
    if abs(values.mean()) > 5 * scale / math.sqrt(len(values)):
        return f"mean {values.mean():.6f} with a spread of {spread:.5f}"
    if kind == "uniform" and np.abs(values).max() > scale * math.sqrt(3) * (1 + 5 / math.sqrt(count)):
        return f"reaches {np.abs(values).max():.5f}, beyond the bound {scale * math.sqrt(3):.5f}"
    if "unknown" not in (kind, found):
        sample = np.random.default_rng(1).choice(values, min(len(values), _SAMPLE), replace=False) / spread
        distance = _distance(sample, kind)
        if distance > 2.2 / math.sqrt(len(sample)):  # exceeded by chance once in 8000
            return f"not {kind}: a distance of {distance:.3f}"
    return ""
