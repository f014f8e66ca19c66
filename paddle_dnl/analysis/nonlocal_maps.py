# SPDX-License-Identifier: Apache-2.0
"""Attention weights of a disentangled or plain non-local block for given queries.

Weights are computed in groups of rows from queries, keys and unary logits of one image, so that memory is linear in the
number of positions.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

from paddle_dnl.analysis.capture import layers_with_inputs
from paddle_dnl.errors import UsageError
from paddle_dnl.nn.disentangled_nonlocal import SOFTMAX_MODES, DisentangledNonLocal2D

import numpy as np
import paddle

# Numbers in one group of rows: 32 MiB in float64.
_BLOCK = 4 << 20


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class BlockAttention:
    """Weights of one block on one image; all arrays are float64. Positions are numbered row by row in the feature map.

    Attributes:
        name: name of the block in the model.
        size: (height, width) of the feature map, N positions.
        mode, combine: see `DisentangledNonLocal2D`.
        scale: factor on the pairwise logits.
        query: `[N, d]`, whitened if the block whitens it; None without a pairwise term.
        key: `[M, d]`; None without a pairwise term.
        mask: unary logits `[M]`; None without a unary term.
        gate: factor on the pairwise term (`gamma`); 1 without a gate.
        pooled: whether keys and values are on the 2x2 pooled map, M = (height // 2) (width // 2).
        concat: for mode `concatenation`: weights of query and key, and factor and shift of the norm.
    """

    name: str
    size: tuple[int, int]
    mode: str
    combine: str
    scale: float
    query: np.ndarray | None
    key: np.ndarray | None
    mask: np.ndarray | None
    gate: float = 1.0
    pooled: bool = False
    concat: tuple[np.ndarray, np.ndarray, float, float] | None = None

    @property
    def has_pairwise(self) -> bool:
        """Whether the block has a term that depends on the query."""
        return self.query is not None

    @property
    def has_unary(self) -> bool:
        """Whether the block has a term that is the same for all queries."""
        return self.mask is not None

    @property
    def is_normalized(self) -> bool:
        """Whether each term's weights are positive and sum to 1."""
        return not self.has_pairwise or self.mode in SOFTMAX_MODES

    def pairwise(self, positions) -> np.ndarray:
        """Returns the pairwise weights of queries at `positions`, `[n, height, width]`.

        Raises:
            UsageError: the block has no pairwise term.
        """
        if not self.has_pairwise:
            raise UsageError(f"{self.name} has no pairwise term")
        return self._by_blocks(positions, self._pairwise_rows)

    def unary(self) -> np.ndarray:
        """Returns the unary weights, which are the same for all queries, `[height, width]`.

        Raises:
            UsageError: the block has no unary term.
        """
        if not self.has_unary:
            raise UsageError(f"{self.name} has no unary term")
        return self._to_map(_softmax(self.mask)[None])[0]

    def weights(self, positions) -> np.ndarray:
        """Returns the weights of the values for queries at `positions`, with both terms, `[n, height, width]`."""
        return self._by_blocks(positions, self._weight_rows)

    def factors(self) -> "BlockAttention":
        """Splits the weights of a plain non-local block into a whitened pairwise and a unary factor.

        A plain block has no separate unary term, but its logits contain one: q_i . k_j = (q_i - mean q) . k_j + mean q
            . k_j.
        Other blocks are returned unchanged.
        """
        is_plain = self.has_pairwise and not self.has_unary and self.mode in SOFTMAX_MODES
        mean = self.query.mean(0) if is_plain else None
        # The mean of whitened queries is 0 up to rounding in float32.
        if not is_plain or np.abs(mean).max() <= 1e-5 * max(np.abs(self.query).max(), 1e-30):
            return self
        mask = self.scale * (self.key @ mean)
        return dataclasses.replace(self, query=self.query - mean, mask=mask, combine="multiply")

    def _by_blocks(self, positions, rows) -> np.ndarray:
        positions = np.asarray(positions, np.int64).reshape(-1)
        count = self.size[0] * self.size[1]
        if positions.size and not (0 <= positions.min() and positions.max() < count):
            raise UsageError(f"{self.name}: positions must lie in [0, {count})")
        step = max(1, _BLOCK // count)
        parts = [self._to_map(rows(positions[i : i + step])) for i in range(0, len(positions), step)]
        return np.concatenate(parts) if parts else np.zeros((0, *self.size))

    def _pairwise_rows(self, positions: np.ndarray) -> np.ndarray:
        query = self.query[positions]
        if self.mode == "concatenation":
            of_query, of_key, factor, shift = self.concat
            logits = (query @ of_query)[:, None] + (self.key @ of_key)[None]
            return np.maximum(logits * factor + shift, 0) / len(self.key)
        logits = query @ self.key.T
        return logits / len(self.key) if self.mode == "dot_product" else _softmax(self.scale * logits)

    def _weight_rows(self, positions: np.ndarray) -> np.ndarray:
        if self.combine == "multiply":
            return _softmax(self.scale * (self.query[positions] @ self.key.T) + self.mask)
        unary = _softmax(self.mask)[None] if self.has_unary else 0.0
        if not self.has_pairwise:
            return np.repeat(unary, len(positions), axis=0)
        return self.gate * self._pairwise_rows(positions) + unary

    def _to_map(self, rows: np.ndarray) -> np.ndarray:
        """Converts `[n, M]` to `[n, height, width]`; the weight of a pooled key is divided among its four positions."""
        height, width = self.size
        if not self.pooled:
            return rows.reshape(-1, height, width)
        coarse = rows.reshape(-1, height // 2, width // 2) / 4
        fine = coarse.repeat(2, axis=1).repeat(2, axis=2)
        return np.pad(fine, ((0, 0), (0, height % 2), (0, width % 2)))


def _concat_weights(block: DisentangledNonLocal2D) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Returns the weights of query and key, and the batch norm as a factor and a shift."""
    project = block.concat_project
    weight = project._conv.weight.numpy().astype(np.float64).reshape(-1)
    half, norm = len(weight) // 2, project._batch_norm
    factor, shift = 1.0, 0.0
    if norm is not None:
        mean, variance, gain, bias = (
            float(t.numpy().reshape(-1)[0]) for t in (norm._mean, norm._variance, norm.weight, norm.bias)
        )
        factor = gain / math.sqrt(variance + norm._epsilon)
        shift = bias - mean * factor
    return weight[:half], weight[half:], factor, shift


def _array(tensor) -> np.ndarray | None:
    return None if tensor is None else tensor[0].numpy().astype(np.float64)


@paddle.no_grad()
def block_attention(name: str, block: DisentangledNonLocal2D, x: paddle.Tensor) -> BlockAttention:
    """Computes the weights of one block for its input `x` `[1, C, H, W]`."""
    terms = block.terms(x)
    mask = _array(terms.mask)
    return BlockAttention(
        name=name,
        size=(int(x.shape[2]), int(x.shape[3])),
        mode=block.mode,
        combine=block.combine,
        scale=block.scale,
        query=_array(terms.query),
        key=_array(terms.key),
        mask=None if mask is None else mask.reshape(-1),
        gate=block.gamma.numpy().item() if block.has_gate else 1.0,
        pooled=block.pool is not None,
        concat=_concat_weights(block) if block.pairwise and block.mode == "concatenation" else None,
    )


def nonlocal_attention(
    model: paddle.nn.Layer, image: paddle.Tensor, run: Callable | None = None
) -> Iterator[BlockAttention]:
    """Yields the weights of each non-local block of a model on one image `[1, 3, H, W]`.

    Args:
        model, image, run: see `paddle_dnl.analysis.capture.capture_inputs`.

    Raises:
        UsageError: the model has none.
    """
    for name, layer, (x,) in layers_with_inputs(model, image, DisentangledNonLocal2D, "has no non-local block", run):
        yield block_attention(name, layer, x)
