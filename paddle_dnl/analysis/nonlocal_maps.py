# SPDX-License-Identifier: Apache-2.0
"""Attention weights of a disentangled or plain non-local block for given queries.

Everything is computed from the queries, keys and unary logits of one image, row by row: memory is linear in the number of
positions, whatever the size of the image.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator

from paddle_dnl.analysis.capture import layers_with_inputs
from paddle_dnl.errors import UsageError
from paddle_dnl.nn.disentangled_nonlocal import SOFTMAX_MODES, DisentangledNonLocal2D

import numpy as np
import paddle

# Numbers of one block of rows: 32 MiB in float64.
_BLOCK = 4 << 20


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class BlockAttention:
    """One block's weights on one image; all arrays float64. Positions count row by row through the feature map.

    Attributes:
        name: of the block in the model.
        size: (height, width) of the feature map, N positions.
        mode, combine: see `DisentangledNonLocal2D`.
        scale: factor on the pairwise logits.
        query: `[N, d]`, whitened as the block does it; None without a pairwise term.
        key: `[M, d]`; None without a pairwise term.
        mask: unary logits `[M]`; None without a unary term.
        gate: the factor on the pairwise term (`gamma`), 1 without one.
        pooled: keys and values lie on the 2x2 pooled map, M = (height // 2) (width // 2).
        concat: for mode `concatenation`: weights of query and key and the norm's factor and shift.
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
        """Whether there is a term that depends on the query."""
        return self.query is not None

    @property
    def has_unary(self) -> bool:
        """Whether there is a term that is the same for all queries."""
        return self.mask is not None

    @property
    def is_normalised(self) -> bool:
        """Whether each term's weights are positive and sum to 1."""
        return not self.has_pairwise or self.mode in SOFTMAX_MODES

    def pairwise(self, positions) -> np.ndarray:
        """The pairwise weights of some queries over all positions, `[n, height, width]`.

        Raises:
            UsageError: the block has no pairwise term.
        """
        if not self.has_pairwise:
            raise UsageError(f"{self.name} has no pairwise term")
        return self._by_blocks(positions, self._pairwise_rows)

    def unary(self) -> np.ndarray:
        """The unary weights, the same for all queries, `[height, width]`.

        Raises:
            UsageError: the block has no unary term.
        """
        if not self.has_unary:
            raise UsageError(f"{self.name} has no unary term")
        return self._to_map(_softmax(self.mask)[None])[0]

    def weights(self, positions) -> np.ndarray:
        """What the values are multiplied with: both terms together, `[n, height, width]`."""
        return self._by_blocks(positions, self._weight_rows)

    def factors(self) -> "BlockAttention":
        """The same weights as a product of a whitened pairwise and a unary factor, where they are one.

        A plain non-local block has no unary term of its own, but its logits hold one: q_i . k_j is
        (q_i - mean q) . k_j + mean q . k_j. Other blocks are returned as they are.
        """
        is_plain = self.has_pairwise and not self.has_unary and self.mode in SOFTMAX_MODES
        mean = self.query.mean(0) if is_plain else None
        # The mean of a whitened query is 0 up to float32 rounding.
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
        """`[n, M]` to `[n, height, width]`; a pooled key's weight is spread over its four positions."""
        height, width = self.size
        if not self.pooled:
            return rows.reshape(-1, height, width)
        coarse = rows.reshape(-1, height // 2, width // 2) / 4
        fine = coarse.repeat(2, axis=1).repeat(2, axis=2)
        return np.pad(fine, ((0, 0), (0, height % 2), (0, width % 2)))


def _concat_weights(block: DisentangledNonLocal2D) -> tuple[np.ndarray, np.ndarray, float, float]:
    """The weights of query and key, and the batch norm as a factor and a shift."""
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
    """The weights of one block for its input `x` `[1, C, H, W]`."""
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
    """The weights of every non-local block of a model on one image `[1, 3, H, W]`.

    Args:
        model, image, run: see `paddle_dnl.analysis.capture.capture_inputs`.

    Raises:
        UsageError: the model has none.
    """
    for name, layer, (x,) in layers_with_inputs(model, image, DisentangledNonLocal2D, "has no non-local block", run):
        yield block_attention(name, layer, x)
