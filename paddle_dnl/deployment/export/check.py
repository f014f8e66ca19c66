# SPDX-License-Identifier: Apache-2.0
"""Compares logits and classes of an exported graph with those of its model on the same input."""

from dataclasses import dataclass

import numpy as np

MAX_DISAGREEMENT = 1e-4
# ONNX Runtime fuses and reorders sums; DNLNet's temperature of 0.05 amplifies rounding errors twenty times.
ONNX_TOLERANCE = 2e-3


@dataclass
class Comparison:
    """Differences between the outputs of a static graph and of the dynamic one.

    Attributes:
        ok: within the allowed differences.
        max_relative_difference: largest difference of logits / largest logit.
        argmax_disagreement: share of pixels with another class, without near ties.
        near_tie_disagreement: share of pixels with another class whose two largest logits differ by less than the tolerance.
        error: why a comparison is impossible, or what else differs.
        random_spread: for a model that is random in evaluation, `max_relative_difference` between two of its passes; twice
            as much was allowed.
    """

    ok: bool
    max_relative_difference: float | None = None
    argmax_disagreement: float | None = None
    near_tie_disagreement: float | None = None
    error: str | None = None
    random_spread: float | None = None

    def describe(self) -> str:
        """One clause for logs and errors."""
        if self.error:
            return self.error
        text = (
            f"logits differ by {self.max_relative_difference:.1e} of the largest, "
            f"classes differ in {100 * self.argmax_disagreement:.4f} % of pixels"
        )
        if self.near_tie_disagreement:
            text += f", and in {100 * self.near_tie_disagreement:.4f} % where two classes were as good as equal"
        return text


def _near_ties(logits: np.ndarray, distance: float) -> np.ndarray:
    """Pixels `[B, H, W]` of logits `[B, K, H, W]` whose two largest logits differ by at most `distance`."""
    if logits.shape[1] < 2:
        return np.zeros((logits.shape[0], *logits.shape[2:]), bool)
    best = np.partition(logits, -2, axis=1)[:, -2:]
    return (best[:, 1] - best[:, 0]) <= distance


def compare(
    reference: np.ndarray, found: np.ndarray, tolerance: float, disagreement: float = MAX_DISAGREEMENT
) -> Comparison:
    """Compares logits `[B, K, H, W]` of two backends.

    They agree if the largest difference is at most `tolerance` times the largest logit, and the classes differ in at most a
    share of `disagreement` (0.01 %) of the pixels; near ties, closer than the tolerance, do not count.
    """
    if not np.isfinite(reference).all():
        return Comparison(False, error="the model itself gives NaN or infinity; are these trained weights?")
    if reference.shape != found.shape:
        return Comparison(False, error=f"output is {list(found.shape)}, expected {list(reference.shape)}")
    if not np.isfinite(found).all():
        return Comparison(False, error="output holds NaN or infinity")
    scale = float(np.abs(reference).max()) or 1.0
    difference = float(np.abs(reference - found).max()) / scale
    disagree = reference.argmax(1) != found.argmax(1)
    ties = _near_ties(reference, tolerance * scale)
    share, tied = float((disagree & ~ties).mean()), float((disagree & ties).mean())
    ok = difference <= tolerance and share <= disagreement
    # Rounded to keep deploy.yaml readable, after the decision.
    return Comparison(ok, round(difference, 9), round(share, 9), round(tied, 9))


def worst(comparisons: list[Comparison]) -> Comparison:
    """The first comparison that is not `ok`, else the largest values of all."""
    bad = next((comparison for comparison in comparisons if not comparison.ok), None)
    if bad is not None:
        return bad
    names = ("max_relative_difference", "argmax_disagreement", "near_tie_disagreement")
    return Comparison(True, *(max(getattr(comparison, name) for comparison in comparisons) for name in names))


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the classes of `[N, K, H, W]`."""
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def check_output(
    reference: np.ndarray,
    logits: np.ndarray,
    output: np.ndarray,
    output_op: str,
    tolerance: float,
    disagreement: float = MAX_DISAGREEMENT,
) -> str | None:
    """What is wrong with the output of the graph that includes `output_op`, or None.

    Args:
        reference: logits of the dynamic graph.
        logits: logits of the static graph, already compared.
        output: classes `[B, H, W]` or probabilities `[B, K, H, W]` of the static graph.
        output_op: `argmax` or `softmax`.
        tolerance, disagreement: see `compare`.
    """
    wanted = reference.argmax(1) if output_op == "argmax" else _softmax(logits)
    if output.shape != wanted.shape:
        return f"{output_op} gives {list(output.shape)}, expected {list(wanted.shape)}"
    if output_op == "softmax":
        limit = tolerance + float(np.abs(reference - logits).max())
        return (
            None if np.abs(output - wanted).max() <= limit else "softmax in the graph differs from that of its logits"
        )
    ties = _near_ties(reference, tolerance * (float(np.abs(reference).max()) or 1.0))
    share = float(((output != wanted) & ~ties).mean())
    return (
        None if share <= disagreement else f"argmax in the graph gives other classes in {100 * share:.4f} % of pixels"
    )
