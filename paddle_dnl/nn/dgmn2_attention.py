# SPDX-License-Identifier: Apache-2.0
"""Attention of DGMN2: every pixel attends to nine samples at offsets that it predicts itself."""

from paddle_dnl.nn.deformable_unfold import SAMPLES, DeformableUnfold
from paddle_dnl.nn.relative_position import RelativePosition

import paddle
import paddle.nn.functional as F
from paddle import nn

LINEAR_STD = 0.02


def linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear layer with the published start: weight normal with std 0.02, bias zero."""
    weight = paddle.ParamAttr(initializer=nn.initializer.Normal(0.0, LINEAR_STD))
    bias = paddle.ParamAttr(initializer=nn.initializer.Constant(0.0))
    return nn.Linear(in_features, out_features, weight_attr=weight, bias_attr=bias)


class DGMN2Attention(nn.Layer):
    """Softmax attention of each pixel over its nine deformable neighbours, per head.

    Queries, keys and values are made channel-first (`[B, C, N]`, the transposition is part of the matrix product),
    so that sampling, logits, softmax and sum work on three axes `[channel, sample, pixel]` without a transposed copy.

    Args:
        dim: C.
        num_heads: h; heads have d = C / h channels.
        table_rows: see `RelativePosition`.
        unfold: implementation of the sampling, see `DeformableUnfold`.
    """

    def __init__(self, dim: int, num_heads: int, table_rows: tuple[int, int], unfold: str = "auto"):
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.qkv = linear(dim, 3 * dim)
        self.proj = linear(dim, dim)
        self.conv_offset = linear(self.head_dim, 2 * SAMPLES)
        self.pos_emb = RelativePosition(table_rows, self.head_dim)
        self.unfold = DeformableUnfold(self.head_dim, unfold)

    def _queries_keys_values(self, x, height, width) -> list[paddle.Tensor]:
        """Three maps `[B * h, d, H, W]`."""
        dim = x.shape[2]
        maps = []
        weights, biases = paddle.split(self.qkv.weight, 3, axis=1), paddle.split(self.qkv.bias, 3)
        for weight, bias in zip(weights, biases):  # noqa: B905  to_static does not support `strict`
            y = paddle.matmul(weight, x, transpose_x=True, transpose_y=True) + bias.reshape([dim, 1])
            maps.append(y.reshape([-1, self.head_dim, height, width]))
        return maps

    def attention_weights(self, x, height, width):
        """Tokens `[B, N, C]` -> (offsets `[B * h, 18, H, W]`, weights `[B * h, 9, N]`, values `[B * h, d, H, W]`)."""
        offset = self.conv_offset(x.reshape([0, 0, self.num_heads, self.head_dim]))
        offset = offset.transpose([0, 2, 3, 1]).reshape([-1, 2 * SAMPLES, height, width])
        q, k, v = self._queries_keys_values(x, height, width)
        logits = (self.scale * q.flatten(2).unsqueeze(2) * self.unfold(k, offset)).sum(1)
        logits = logits + self.pos_emb(q).flatten(2)
        return offset, F.softmax(logits, axis=1), v

    def forward(self, x, height, width):
        """Tokens `[B, N = H * W, C]`, row by row -> `[B, N, C]`."""
        dim = x.shape[2]
        offset, weights, v = self.attention_weights(x, height, width)
        y = (weights.unsqueeze(1) * self.unfold(v, offset)).sum(2)
        y = y.reshape([-1, dim, height * width])
        return paddle.matmul(y, self.proj.weight, transpose_x=True) + self.proj.bias
