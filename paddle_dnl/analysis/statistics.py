# SPDX-License-Identifier: Apache-2.0
"""Measures the share of attention on the query's category and on boundaries; docs/attention.md defines the measures.

An overlap is a share of attention. Let w_j be the weights of a map at the positions j of the feature map, and R a
region of labeled pixels. Each weight is distributed evenly over the pixels of its position; ignored pixels are
excluded:

    overlap(w, R) = sum_j w_j r_j / sum_j w_j l_j,   r_j, l_j: share of position j's pixels that are in R, or labeled

For uniform weights the overlap is the share of R in the labeled area. `top` replaces the weights by 1 for the tenth of
the positions with the largest weights, and by 0 for the others.
"""

from dataclasses import dataclass, field

from paddle_dnl.analysis.nonlocal_maps import BlockAttention
from paddle_dnl.errors import UsageError

import cv2
import numpy as np

TOP = 0.1


def boundary_region(label: np.ndarray, width: int, ignore_index: int = 255) -> np.ndarray:
    """Returns the pixels near a change of category, `[H, W]` bool.

    A pixel is on the contour if one of its four neighbors has another category; ignored pixels have no category. The
    region consists of all labeled pixels less than `width` pixels (Euclidean distance between centers) from the
    contour; width 1 is the contour itself.
    """
    labeled = label != ignore_index
    contour = np.zeros(label.shape, bool)
    for first, second in (((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
                          ((slice(None), slice(1, None)), (slice(None), slice(None, -1)))):  # fmt: skip
        changes = (label[first] != label[second]) & labeled[first] & labeled[second]
        contour[first] |= changes
        contour[second] |= changes
    if not contour.any():
        return contour
    distance = cv2.distanceTransform((~contour).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return labeled & (distance < width)


def shares(region: np.ndarray, cells: np.ndarray, positions: int) -> np.ndarray:
    """Returns the share of each position's pixels that are in a region, `[positions]`; 0 for positions without pixels.

    Args:
        region: `[H, W]` bool.
        cells: position of each pixel, `[H, W]`.
        positions: number of positions.
    """
    inside = np.bincount(cells[region].reshape(-1), minlength=positions)
    return inside / np.maximum(np.bincount(cells.reshape(-1), minlength=positions), 1)


def overlap(weights: np.ndarray, region: np.ndarray, labeled: np.ndarray) -> np.ndarray:
    """Returns the share of attention on a region, `[n]`; NaN if no attention is on labeled pixels.

    Args:
        weights: `[n, N]`.
        region, labeled: shares of each position's pixels, `[N]`, or `[n, N]` for a region that depends on the query.
    """
    total = (weights * labeled).sum(-1)
    inside = (weights * region).sum(-1)
    return np.divide(inside, total, out=np.full(inside.shape, np.nan), where=total > 0)


def top_weights(weights: np.ndarray, fraction: float = TOP) -> np.ndarray:
    """Returns 1 for the largest weights of each row (at least one; the first of equal ones) and 0 for the others."""
    count = max(1, round(fraction * weights.shape[-1]))
    chosen = np.argsort(-weights, axis=-1, kind="stable")[..., :count]
    result = np.zeros(weights.shape)
    np.put_along_axis(result, chosen, 1.0, axis=-1)
    return result


def sample_queries(label: np.ndarray, count: int, seed: int, index: int, ignore_index: int = 255) -> np.ndarray:
    """Draws flat indices of labeled pixels uniformly with replacement; reproducible by `seed` and image `index`."""
    candidates = np.flatnonzero(label.reshape(-1) != ignore_index)
    if not len(candidates):
        return candidates
    return candidates[np.random.default_rng([seed, index]).integers(0, len(candidates), count)]


@dataclass
class AttentionStatistics:
    """Statistics over images; all images have the same weight.

    Args:
        queries: number of queries per image.
        seed: seed of their choice.
        boundary_width: see `boundary_region`.
        ignore_index: label of ignored pixels.
    """

    queries: int
    seed: int
    boundary_width: int
    ignore_index: int = 255
    images: int = 0
    _values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, attention: BlockAttention, label: np.ndarray, cells: np.ndarray) -> None:
        """Adds one image.

        Args:
            attention: weights of the block; a plain block is split into its two factors.
            label: `[H, W]` categories.
            cells: position of each pixel, see `paddle_dnl.analysis.geometry`.

        Raises:
            UsageError: the weights are not shares (modes without softmax).
        """
        if not attention.is_normalized:
            raise UsageError(f"mode {attention.mode}: its weights do not sum to 1; the statistics need a softmax mode")
        index, self.images = self.images, self.images + 1
        pixels = sample_queries(label, self.queries, self.seed, index, self.ignore_index)
        if not len(pixels):
            return
        count = attention.size[0] * attention.size[1]
        labeled = shares(label != self.ignore_index, cells, count)
        boundary = shares(boundary_region(label, self.boundary_width, self.ignore_index), cells, count)
        categories = label.reshape(-1)[pixels]
        by_category = {c: shares(label == c, cells, count) for c in np.unique(categories)}
        own = np.stack([by_category[c] for c in categories])  # [n, N]

        factors, positions = attention.factors(), cells.reshape(-1)[pixels]
        total = attention.weights(positions).reshape(-1, count)
        self._record("total", total, own, boundary, labeled)
        if factors.has_pairwise:
            self._record("pairwise", factors.pairwise(positions).reshape(-1, count), own, boundary, labeled)
        if factors.has_unary:
            self._record("unary", factors.unary().reshape(1, count), None, boundary, labeled)
        even = np.ones((1, count))
        self._keep("random_category", overlap(even, own, labeled))
        self._keep("random_boundary", overlap(even, boundary, labeled))

    def _record(self, term: str, weights, own, boundary, labeled) -> None:
        for suffix, chosen in (("", weights), ("_top", top_weights(weights))):
            if own is not None:
                self._keep(f"{term}_category{suffix}", overlap(chosen, own, labeled))
            self._keep(f"{term}_boundary{suffix}", overlap(chosen, boundary, labeled))

    def _keep(self, name: str, values: np.ndarray) -> None:
        if np.isfinite(values).any():
            self._values.setdefault(name, []).append(float(np.nanmean(values)))

    def result(self) -> dict:
        """Returns the settings, and for each measure the mean over images and its standard error."""
        measures = {}
        for name, values in self._values.items():
            error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
            measures[name] = {"mean": float(np.mean(values)), "standard_error": error, "images": len(values)}
        return {
            "images": self.images,
            "queries_per_image": self.queries,
            "seed": self.seed,
            "boundary_width": self.boundary_width,
            "top_fraction": TOP,
            "measures": measures,
        }
