# SPDX-License-Identifier: Apache-2.0
"""Exact softmax attention, with or without the N x M map in memory.

`attend` computes softmax(scale * q k^T) v. Three implementations agree to rounding, in value and in gradient:

* `plain` holds the whole map (and, in training, keeps it for the backward pass): fastest for small maps.
* `streaming` works through tiles of query rows. A row's softmax needs nothing from other rows, so the
  result is exact. In training a `PyLayer` stores only q, k, v and the output, and recomputes each tile in
  the backward pass.
* `flash` calls the fused kernel of GPUs that have one, in half precision.

Range: the product of two centred 256-channel vectors passes 65504, the largest float16, when their entries
are near 16. So logits and softmax are always float32 (float64 for float64 inputs), whatever autocast says.
"""

import contextlib
import logging
import math
import typing

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

IMPLEMENTATIONS = ("auto", "plain", "streaming", "flash")


class _Limits(typing.NamedTuple):
    """Sizes by which `auto` and `streaming` decide, for a kind of device.

    Args:
        plain_bytes: the largest map that `auto` holds whole.
        tile_bytes: of the largest tile.
        tile_rows: query rows of a tile at most; in an exported graph, in which every tile is a node of its own, twice as many.
    """

    plain_bytes: int
    tile_bytes: int
    tile_rows: int


# Larger tiles do not fit into a processor's cache, smaller ones make the matrix products inefficient.
_CPU = _Limits(plain_bytes=16 << 20, tile_bytes=32 << 20, tile_rows=256)
# A GPU has no such cache but starts three kernels per tile: few large ones. Sizes by reasoning, not measured on a GPU.
_GPU = _Limits(plain_bytes=64 << 20, tile_bytes=256 << 20, tile_rows=1 << 20)

_logger = logging.getLogger(__name__)
_announced = False


@paddle.jit.not_to_static  # sizes must stay Python numbers: a tile loop over a symbolic length never ends
def attend(q, k, v, scale: float = 1.0, implementation: str = "auto", tile_rows: int | None = None):
    """Softmax attention of every query over all keys.

    Args:
        q: queries `[B, N, d]`.
        k: keys `[B, M, d]`.
        v: values `[B, M, e]`.
        scale: factor on the logits; it is applied to `q`, once.
        implementation: `plain`, `streaming`, `flash` or `auto`. `auto` takes `plain` for maps up to 16 MiB (on a GPU 64 MiB)
            and where N is not known (a static graph with a free input size), else `streaming`. It never
            takes `flash`, whose half-precision operands round differently.
        tile_rows: query rows per tile of `streaming`; by default 256, in a static graph 512, and at most a 32 MiB tile; on a
            GPU as many as a tile of 256 MiB has.

    Returns:
        `[B, N, e]` in the dtype of `v`.

    Raises:
        ValueError: unknown implementation, or `streaming` asked for where N is not known.
        RuntimeError: `flash` asked for where it cannot run.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"attention: implementation must be one of {IMPLEMENTATIONS}, got {implementation!r}")
    if implementation == "flash":
        return _flash(q, k, v, scale)
    if implementation == "auto":
        implementation = _choose(q, k)
    dtype = v.dtype
    with full_precision():
        q, k, v = in_full_precision(q, k, v)
        q = q * scale
        if implementation == "plain":
            out = _rows(q, k, v)
        else:
            out = _streaming(q, k, v, tile_rows)
        return out if out.dtype == dtype else out.cast(dtype)


def full_precision():
    """Context in which autocast changes no dtype; nothing in the old static graph, which has no autocast."""
    if paddle.framework.in_dynamic_or_pir_mode():
        return paddle.amp.auto_cast(enable=False)
    return contextlib.nullcontext()


def in_full_precision(*tensors):
    """The tensors with float16 and bfloat16 cast to float32; float32 and float64 stay as they are."""
    half = (paddle.float16, paddle.bfloat16)
    return [tensor.cast("float32") if tensor.dtype in half else tensor for tensor in tensors]


def _known(size) -> bool:
    return isinstance(size, int) and size > 0


def _map_bytes(q, k, rows: int) -> int:
    """Bytes of `rows` rows of the map for the whole batch; a free batch counts as one."""
    batch = q.shape[0] if _known(q.shape[0]) else 1
    return batch * rows * k.shape[1] * (8 if q.dtype == paddle.float64 else 4)


def _limits() -> _Limits:
    """Those of the device in use."""
    return _GPU if paddle.get_device().startswith("gpu") else _CPU


def _choose(q, k) -> str:
    """What `auto` means for these tensors; says once per process that tiles are in use, and what they save."""
    global _announced
    rows, columns = q.shape[1], k.shape[1]
    if not (_known(rows) and _known(columns)):
        return "plain"
    size = _map_bytes(q, k, rows)
    if size <= _limits().plain_bytes:
        return "plain"
    if not _announced:
        _announced = True
        _logger.info(
            "Attention: row tiles instead of the %d x %d map, which would take %d MiB (exact).",
            rows,
            columns,
            size >> 20,
        )
    return "streaming"


def evaluation_map_bytes(rows: int, columns: int, implementation: str) -> int:
    """Bytes of the map, or of the tile of it, that an evaluation in float32 holds for one image; 0 for `flash`."""
    limits, whole = _limits(), 4 * rows * columns
    if implementation == "flash":
        return 0
    if implementation == "plain" or (implementation == "auto" and whole <= limits.plain_bytes):
        return whole
    return min(whole, limits.tile_bytes, 4 * limits.tile_rows * columns)


def _rows(q, k, v):
    """Attention of the given (already scaled) queries, with their part of the map in memory."""
    return paddle.matmul(_weights(q, k), v)


def _weights(q, k):
    """softmax(q k^T), in place where no gradient is needed.

    A second tile costs more than its arithmetic: fresh memory is cold (N = 8192, 512 rows: 0.51 s with it, 0.39 s without).
    """
    logits = paddle.matmul(q, k, transpose_y=True)
    if paddle.in_dynamic_mode() and not paddle.is_grad_enabled():
        return F.softmax_(logits, axis=-1)
    return F.softmax(logits, axis=-1)


def _streaming(q, k, v, tile_rows: int | None):
    if not _known(q.shape[1]):
        raise ValueError(
            "attention: 'streaming' needs a fixed number of positions. Export with a fixed --input_shape, "
            "or set attention to 'auto' or 'plain'."
        )
    learning = paddle.is_grad_enabled() and not all(t.stop_gradient for t in (q, k, v))
    if tile_rows is None:
        limits = _limits()
        tile_rows = limits.tile_rows if paddle.in_dynamic_mode() else 2 * limits.tile_rows
        if _known(k.shape[1]):
            tile_rows = min(tile_rows, limits.tile_bytes // max(1, _map_bytes(q, k, 1)))
    tile_rows = min(max(1, int(tile_rows)), q.shape[1])
    if learning and paddle.in_dynamic_mode():
        return _StreamingAttention.apply(q, k, v, tile_rows)
    return _tile_loop(q, k, v, tile_rows)


def _tiles(length: int, rows: int):
    return [(start, min(start + rows, length)) for start in range(0, length, rows)]


def _tile_loop(q, k, v, rows: int):
    """The forward pass, tile after tile; in a static graph the loop is unrolled."""
    outputs = [_rows(q[:, start:stop], k, v) for start, stop in _tiles(q.shape[1], rows)]
    return outputs[0] if len(outputs) == 1 else paddle.concat(outputs, axis=1)


class _StreamingAttention(PyLayer):
    """softmax(q k^T) v whose backward pass recomputes the map tile by tile."""

    @staticmethod
    def forward(ctx, q, k, v, rows):
        out = _tile_loop(q, k, v, rows)
        ctx.save_for_backward(q, k, v, out)
        ctx.rows = rows
        ctx.wanted = [not tensor.stop_gradient for tensor in (q, k, v)]
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, out = ctx.saved_tensor()
        with paddle.no_grad(), full_precision():
            # Row i of the softmax Jacobian needs sum_j p_ij dp_ij = grad_i . out_i: no pass over the map.
            delta = (grad * out).sum(axis=-1, keepdim=True)
            grad_q = []
            grad_k, grad_v = paddle.zeros_like(k), paddle.zeros_like(v)
            for start, stop in _tiles(q.shape[1], ctx.rows):
                q_tile, grad_tile = q[:, start:stop], grad[:, start:stop]
                p = _weights(q_tile, k)
                grad_v.add_(paddle.matmul(p, grad_tile, transpose_x=True))
                dp = paddle.matmul(grad_tile, v, transpose_y=True)
                dp.subtract_(delta[:, start:stop])
                dp.multiply_(p)
                del p
                grad_q.append(paddle.matmul(dp, k))
                grad_k.add_(paddle.matmul(dp, q_tile, transpose_x=True))
            grads = (paddle.concat(grad_q, axis=1), grad_k, grad_v)
            # Paddle insists on None for an input that does not learn.
            return tuple(g if wanted else None for g, wanted in zip(grads, ctx.wanted, strict=True))


def _flash_obstacle(q, k, v) -> str | None:
    """Why the fused kernel cannot take these tensors, or None."""
    width = q.shape[-1]
    if not (paddle.is_compiled_with_cuda() and paddle.get_device().startswith("gpu")):
        return "the device is not a CUDA GPU"
    if paddle.device.cuda.get_device_capability()[0] < 8:
        return "the GPU is older than compute capability 8.0"
    if v.dtype not in (paddle.float16, paddle.bfloat16):
        return f"it needs float16 or bfloat16 values (AMP), got {v.dtype}"
    if width > 256 or width % 8:
        return f"the query width must be a multiple of 8 up to 256, got {width}"
    if v.shape[-1] % width:
        return f"the value width {v.shape[-1]} is not a multiple of the query width {width}"
    return None


def _flash(q, k, v, scale: float):
    """The fused half-precision kernel, one head; not exercised on the CPU-only machines of the tests.

    Paddle takes the flash path only without a `scale` argument and then divides by sqrt(d), so the wanted
    scale times sqrt(d) goes into the query, in float32 before it is rounded. A value wider than the query
    is cut into pieces of the query's width, since the kernel wants equal widths.
    """
    obstacle = _flash_obstacle(q, k, v)
    if obstacle:
        raise RuntimeError(f"attention: 'flash' cannot run: {obstacle}. Use 'auto', 'streaming' or 'plain'.")
    width = q.shape[-1]
    with full_precision():
        q = (q.cast("float32") * (scale * math.sqrt(width))).cast(v.dtype).unsqueeze(2)
        k = k.cast(v.dtype).unsqueeze(2)
        pieces = paddle.split(v.unsqueeze(2), v.shape[-1] // width, axis=-1)
        return paddle.concat([F.scaled_dot_product_attention(q, k, piece) for piece in pieces], axis=-1).squeeze(2)
