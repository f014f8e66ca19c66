# SPDX-License-Identifier: Apache-2.0
"""The disentangled non-local block (Yin et al., ECCV 2020, https://arxiv.org/abs/2006.06668).

A non-local block lets every position i gather values v_j from all positions j. Here the weight is the sum of
two:

    pairwise  softmax_j( (q_i - mean q) . (k_j - mean k) * scale )    how alike i and j are
    unary     softmax_j( m_j )                                        how salient j is, for everybody

    y_i = x_i + out( sum_j (pairwise_ij + unary_j) v_j )

Removing the mean ("whitening") is what makes the two learn different things. The published implementations
differ in details that change the function: see `DIALECTS`.

The paper's steps from the plain non-local block to this one are switches (`unary_key`, `combine`). The plain
block is itself a product of two terms, since q_i . k_j = (q_i - mean q) . (k_j - mean k) + mean q . k_j plus
what does not depend on j:

    plain           softmax_j( whitened_ij + mean q . k_j )       multiply, shared key
    add only        softmax_j(whitened_ij) + softmax_j(mean q . k_j)   add, shared key
    separate key    softmax_j( whitened_ij + m_j )                multiply, own projection
    disentangled    softmax_j(whitened_ij) + softmax_j(m_j)       add, own projection
"""

import math
from typing import NamedTuple

from paddle_dnl.nn.attention import attend, full_precision, in_full_precision
from paddle_dnl.nn.layers import ConvBN, ConvBNReLU
from paddle_dnl.nn.resize import spatial_size
from paddle_dnl.nn.torch_init import init_conv_like_torch, init_conv_module, init_normal
from paddle_dnl.nn.whitening import KEY_MEAN_IS_IRRELEVANT, WHITENINGS, whiten

import paddle
import paddle.nn.functional as F
from paddle import nn

MODES = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")
OUTPUTS = ("conv_bn_relu", "conv_bn", "none")
SOFTMAX_MODES = ("embedded_gaussian", "gaussian")
UNARY_KEYS = ("own", "shared")
# Standard deviation of the convolutions' weights at the start; None: Paddle's default.
INITS = {"paddle": None, "mmseg": 0.01, "official": 0.01}
COMBINATIONS = ("add", "multiply")

# The published implementations as settings of one block: PaddleSeg's models/dnlnet.py, mmsegmentation's
# dnl_head.py, and the authors' yinmh17/DNL-Semantic-Segmentation.
DIALECTS = {
    "paddleseg": {"output": "conv_bn_relu", "concat_norm": True},
    "mmseg": {"output": "conv_bn", "zero_init": True, "init": "mmseg"},
    "official": {"output": "none", "gamma_gate": True, "init": "official"},
}


class DisentangledNonLocal2D(nn.Layer):
    """Disentangled non-local block on a feature map `[B, C, H, W]`; the output has the shape of the input.

    Parameters are named as in PaddleSeg: `g` (value), `theta` (query), `phi` (key), `conv_mask`, `conv_out`,
    `concat_project`; `gamma` as in the authors' code.

    Args:
        in_channels: C.
        reduction: C / C', where C' is the width of queries and keys.
        use_scale: divide the logits by sqrt(C') (embedded_gaussian only, as in all implementations).
        sub_sample: keys, values and mask come from the 2x2 max-pooled input, a quarter of the positions. This
            is the authors' `downsample`. PaddleSeg and mmseg pool after the projection, forget the mask and
            cannot run, so there are no weights to be compatible with; the parameter names stay the same here.
        mode: the pairwise weight. `embedded_gaussian`: softmax of theta.phi. `gaussian`: softmax of x.x, no
            projections, no scale, no temperature. `dot_product`: theta.phi / M without softmax, evaluated as
            theta (phi^T g) / M, which never forms the map. `concatenation`: relu(w . [theta_i, phi_j]) / M.
        temperature: divides the logits (embedded_gaussian only).
        whitening: what is taken off queries and keys, see `paddle_dnl.nn.whitening`.
        value_channels: width of the values; default C' or, with output `none`, C.
        output: branch between aggregation and residual: `conv_bn_relu`, `conv_bn` or `none`. With `none` the
            value projection has no bias, as in the authors' code.
        zero_init: the output branch's norm starts at 0, so that the block starts as the identity.
        gamma_gate: a learned scalar, starting at 0, multiplies the pairwise term (and not the unary one).
        pairwise: False leaves the unary term alone (a simplified GC block).
        unary: False leaves the pairwise term alone; with whitening `none` and temperature 1 that is the plain
            non-local block.
        unary_key: `own`: m_j comes from a projection of its own, `conv_mask`. `shared`: m_j = mean q . k_j with
            the keys of the pairwise term, unscaled, and `conv_mask` does not exist (the paper's ablation).
        combine: `add`: two softmaxes, whose weights are added. `multiply`: one softmax over the sum of the
            logits, which multiplies the two weights and normalises (the paper's ablation).
        concat_norm: batch norm before the ReLU in `concatenation` mode (PaddleSeg).
        attention: implementation for the softmax modes, see `paddle_dnl.nn.attention.attend`.
        init: initial values. `paddle`: Paddle's defaults (PaddleSeg). `mmseg`: theta, phi and g normal with zero
            bias, conv_mask as PyTorch's default, the other convolutions as OpenMMLab's `ConvModule`. `official`:
            all convolutions normal with zero bias.
        init_std: standard deviation of that normal distribution; None: 0.01. With `paddle`: also makes theta, phi,
            g and conv_mask normal.

    Raises:
        ValueError: an argument is not among its options, or two of them exclude each other.
    """

    def __init__(
        self,
        in_channels: int,
        reduction: int = 2,
        use_scale: bool = True,
        sub_sample: bool = False,
        mode: str = "embedded_gaussian",
        temperature: float = 0.05,
        whitening: str = "spatial",
        value_channels: int | None = None,
        output: str = "conv_bn_relu",
        zero_init: bool = False,
        gamma_gate: bool = False,
        pairwise: bool = True,
        unary: bool = True,
        concat_norm: bool = False,
        attention: str = "auto",
        init: str = "paddle",
        init_std: float | None = None,
        unary_key: str = "own",
        combine: str = "add",
    ):
        super().__init__()
        _check(
            mode=(mode, MODES),
            whitening=(whitening, WHITENINGS),
            output=(output, OUTPUTS),
            init=(init, INITS),
            unary_key=(unary_key, UNARY_KEYS),
            combine=(combine, COMBINATIONS),
        )
        inner = max(in_channels // reduction, 1)
        if value_channels is None:
            value_channels = in_channels if output == "none" else inner
        if not (pairwise or unary):
            raise ValueError("at least one of pairwise and unary must be True")
        both = pairwise and unary
        if unary_key == "shared" and not (both and mode == "embedded_gaussian"):
            raise ValueError("unary_key 'shared' needs pairwise and unary True and mode 'embedded_gaussian'")
        if combine == "multiply" and not (both and mode in SOFTMAX_MODES):
            raise ValueError(
                f"combine 'multiply' needs pairwise and unary True and a mode of {', '.join(SOFTMAX_MODES)}"
            )
        if combine == "multiply" and gamma_gate:
            raise ValueError("combine 'multiply' leaves no pairwise term for gamma_gate to multiply")
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if output == "none" and value_channels != in_channels:
            raise ValueError(f"output 'none' needs value_channels {in_channels} (in_channels), got {value_channels}")
        if output == "none" and zero_init:
            raise ValueError("zero_init needs an output branch with a norm: output 'conv_bn' or 'conv_bn_relu'")
        self.mode, self.whitening, self.attention = mode, whitening, attention
        self.pairwise, self.unary = pairwise, unary
        self.unary_key, self.combine = unary_key, combine
        self.scale = 1.0
        if mode == "embedded_gaussian":
            self.scale = 1.0 / (temperature * (math.sqrt(inner) if use_scale else 1.0))

        self.pool = nn.MaxPool2D(2, 2) if sub_sample else None
        self.g = nn.Conv2D(in_channels, value_channels, 1, bias_attr=False if output == "none" else None)
        if output != "none":
            branch = ConvBNReLU if output == "conv_bn_relu" else ConvBN
            self.conv_out = branch(value_channels, in_channels, 1, bias_attr=False)
        if pairwise and mode != "gaussian":
            self.theta = nn.Conv2D(in_channels, inner, 1)
            self.phi = nn.Conv2D(in_channels, inner, 1)
        if pairwise and mode == "concatenation":
            self.concat_project = _ConcatProject(inner, concat_norm)
        if unary and unary_key == "own":
            self.conv_mask = nn.Conv2D(in_channels, 1, 1)
        if gamma_gate and pairwise:
            self.gamma = self.create_parameter([1], default_initializer=nn.initializer.Constant(0.0))
        self.has_output, self.has_gate = output != "none", gamma_gate and pairwise
        self._init_weights(init, INITS[init] if init_std is None else init_std, zero_init)

    def _init_weights(self, init: str, std: float | None, zero_init: bool) -> None:
        if zero_init:
            nn.initializer.Constant(0.0)(self.conv_out._batch_norm.weight)
        if std is None:
            return
        for name in ("g", "theta", "phi", "conv_mask"):
            if hasattr(self, name):
                init_normal(getattr(self, name), std)
        branches = [getattr(self, name)._conv for name in ("conv_out", "concat_project") if hasattr(self, name)]
        if init == "mmseg":
            if hasattr(self, "conv_mask"):
                init_conv_like_torch(self.conv_mask)
            for conv in branches:
                init_conv_module(conv)
        elif init == "official":
            for conv in branches:
                init_normal(conv, std)

    def forward(self, x):
        source = x if self.pool is None else self.pool(x)
        values = _positions(self.g(source))  # [B, M, e]
        terms = self._terms(x, source)
        if self.combine == "multiply":
            return x + self._back_to_map(self._product_term(terms, values), x)
        y = None
        if self.pairwise:
            y = self._pairwise_term(terms, values)  # [B, N, e]
            if self.has_gate:
                y = y * self.gamma.cast(y.dtype)
        if self.unary:
            mean = self._unary_term(terms, values)  # [B, 1, e]
            y = mean if y is None else y + mean
        return x + self._back_to_map(y, x)

    def terms(self, x) -> "Terms":
        """What the weights of this input are made of, linear in the number of positions; see `Terms`."""
        return self._terms(x, x if self.pool is None else self.pool(x))

    def _terms(self, x, source) -> "Terms":
        query = key = mask = None
        if self.pairwise:
            gaussian = self.mode == "gaussian"
            query = _positions(x if gaussian else self.theta(x))
            key = _positions(source if gaussian else self.phi(source))
            with full_precision():
                query, key = in_full_precision(query, key)
                if self.unary_key == "shared":
                    mask = paddle.matmul(query.mean(axis=1, keepdim=True), key, transpose_y=True)
                query = whiten(query, self.whitening)
                if self.mode not in SOFTMAX_MODES or self.whitening not in KEY_MEAN_IS_IRRELEVANT:
                    key = whiten(key, self.whitening)
        if self.unary and self.unary_key == "own":
            mask = self.conv_mask(source).flatten(2)
        return Terms(query, key, mask)

    def _pairwise_term(self, terms, values):
        """Sum over j of the pairwise weights times v_j, `[B, N, e]`."""
        if self.mode == "dot_product":
            return _dot_product(terms.query, terms.key, values)
        if self.mode == "concatenation":
            return self.concat_project(terms.query, terms.key, values)
        return attend(terms.query, terms.key, values, self.scale, self.attention)

    def _product_term(self, terms, values):
        """Sum over j of softmax_j(scale q_i . k_j + m_j) v_j, `[B, N, e]`.

        The mask becomes one more channel of the keys and meets a constant channel of the queries, so that the map is
        worked through by the same code as always.
        """
        with full_precision():
            query, key, mask = in_full_precision(*terms)
            query = paddle.concat([query, paddle.full_like(query[:, :, :1], 1 / self.scale)], axis=-1)
            key = paddle.concat([key, mask.transpose([0, 2, 1])], axis=-1)
        return attend(query, key, values, self.scale, self.attention)

    def _unary_term(self, terms, values):
        """Sum over j of softmax_j(m_j) v_j, one vector per image, `[B, 1, e]`: linear in M."""
        with full_precision():
            mask, wide_values = in_full_precision(terms.mask, values)
            return paddle.matmul(F.softmax(mask, axis=-1), wide_values).cast(values.dtype)

    def _back_to_map(self, y, x):
        """`[B, N or 1, e]` to `[B, C, H, W]`, through the output branch."""
        height, width = spatial_size(x)
        y = y.transpose([0, 2, 1])
        if self.pairwise:
            y = y.reshape([0, y.shape[1], height, width])
        else:
            # Spread over the map before the output branch: its batch norm then counts positions as always.
            y = y.unsqueeze(-1) + paddle.zeros_like(x[:, :1])
        return self.conv_out(y) if self.has_output else y


class Terms(NamedTuple):
    """Ingredients of a block's weights for one batch; None where the block lacks the term.

    query: `[B, N, d]`, whitened, not yet scaled.  key: `[B, M, d]`.  mask: unary logits m, `[B, 1, M]`.
    """

    query: paddle.Tensor | None
    key: paddle.Tensor | None
    mask: paddle.Tensor | None


class _ConcatProject(nn.Layer):
    """relu(norm(w . [q_i, k_j])) / M as pairwise weight, applied to the values.

    A 1x1 convolution over the concatenation is w_q . q_i + w_k . k_j, an outer sum: the 2C' x N x M tensor of
    the original code is never built. In evaluation the map is worked through in tiles of rows; in training it
    is there once, because the batch norm (if any) needs its statistics.
    """

    def __init__(self, channels: int, norm: bool):
        super().__init__()
        conv = ConvBN(2 * channels, 1, 1, bias_attr=False)
        self._conv = conv._conv
        self._batch_norm = conv._batch_norm if norm else None

    @paddle.jit.not_to_static  # the tile loop, see paddle_dnl.nn.attention
    def forward(self, query, key, values):
        dtype = values.dtype
        with full_precision():
            values = in_full_precision(values)[0]
            channels = query.shape[2]
            weight = self._conv.weight.reshape([2 * channels, 1]).cast(query.dtype)
            rows = paddle.matmul(query, weight[:channels])  # [B, N, 1]
            columns = paddle.matmul(key, weight[channels:]).transpose([0, 2, 1])  # [B, 1, M]
            # The division by the number of keys goes to the values: M x e numbers instead of N x M.
            values = values / (key.shape[1] if key.shape[1] > 0 else paddle.shape(key)[1].cast(values.dtype))
            # Tiles of 32 MiB in float32, for the keys of a whole batch; none where their number is not known.
            keys = key.shape[1] * max(1, key.shape[0])
            count, step = rows.shape[1], max(1, (8 << 20) // keys) if keys > 0 else 0
            if self.training or count <= 0 or step <= 0:
                return self._part(rows, columns, values).cast(dtype)
            parts = [self._part(rows[:, i : i + step], columns, values) for i in range(0, count, step)]
            return paddle.concat(parts, axis=1).cast(dtype)

    def _part(self, rows, columns, values):
        weights = rows + columns
        if self._batch_norm is not None:
            weights = self._batch_norm(weights.unsqueeze(1)).squeeze(1)
        return paddle.matmul(F.relu(weights), values)


@paddle.jit.not_to_static
def _dot_product(query, key, values):
    """(q k^T / M) v as q (k^T v / M), which is linear in the number of positions."""
    dtype = values.dtype
    with full_precision():
        values = in_full_precision(values)[0]
        count = key.shape[1] if key.shape[1] > 0 else paddle.shape(key)[1].cast(values.dtype)
        return paddle.matmul(query, paddle.matmul(key, values / count, transpose_x=True)).cast(dtype)


def _positions(x):
    """`[B, C, H, W]` to `[B, H * W, C]`."""
    return x.flatten(2).transpose([0, 2, 1])


def _check(**choices) -> None:
    """Raises ValueError for a value outside its options: `name=(value, options)`."""
    for name, (value, options) in choices.items():
        if value not in options:
            raise ValueError(f"{name} must be one of {', '.join(options)}; got {value!r}")
