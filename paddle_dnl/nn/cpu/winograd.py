# SPDX-License-Identifier: Apache-2.0
"""3x3 convolution by Winograd's algorithm F(2x2, 3x3): 16 products per 2x2 outputs instead of 36 ("Fast Algorithms for
Convolutional Neural Networks", Lavin and Gray, CVPR 2016).

    output = A' [(G weight G') * (B' input B)] A        for each tile: 4x4 inputs, 2x2 outputs, channels summed

The sums over channels are 16 matrix products; the transforms around them are sums of two or three numbers, which NumPy computes
in threads on blocks of channels that fit into a core's cache. With dilation d every d-th row and column is a map of its own. The
input gradient is the convolution of the output gradient with the turned kernel, and the weight gradient the transposed algorithm.
All constants are 0, 1 and 1/2, so that the result differs from that of a matrix product of the unfolded input by rounding only.

Arrays are views of Paddle's memory: nothing is copied between the two.
"""

import ctypes
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import paddle

# Transformed weights are G w G', with G' written as a matrix on the 9 taps: row 4 i + j is the outer product of rows i and j.
_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
_TAPS = np.einsum("ia,jb->ijab", _G, _G).reshape(16, 9)
# Of a kernel turned by 180 degrees: G with its columns reversed.
_TURNED_TAPS = np.einsum("ia,jb->ijab", _G[:, ::-1], _G[:, ::-1]).reshape(16, 9)

# Transformed input and output of one matrix product. On 2 cores of an EPYC, 512 channels of 64 x 128: 114 ms with 64 MiB, 122
# with 32, 212 in strips without this algorithm.
WORKING_BYTES = 64 << 20
# Padded input of one block of channels; 125 ms with half as much, 155 with a quarter: NumPy's calls are short then.
_BLOCK_BYTES = 1 << 20
# From this value of C * K / (C + K) for C and K channels: 64 channels of 128 x 256 take 25 ms in place of 33.
_CHANNELS = 30


def is_faster(in_channels: int, out_channels: int) -> bool:
    """Whether the matrix products saved take longer than the transforms."""
    return in_channels * out_channels >= _CHANNELS * (in_channels + out_channels)


def working_bytes(in_channels: int, out_channels: int) -> int:
    """Bytes that a convolution holds beside its input and output."""
    return WORKING_BYTES + 64 * in_channels * out_channels


def convolve(x: paddle.Tensor, weight: paddle.Tensor, dilation: int, transposed: bool = False) -> paddle.Tensor:
    """Convolution of stride 1 whose padding is its dilation, `[B, K, H, W]`.

    Args:
        x: `[B, C, H, W]`, float32.
        weight: `[K, C, 3, 3]`.
        dilation: of both axes.
        transposed: take `x` as an output gradient, `[B, K, H, W]`, and give that of the input, `[B, C, H, W]`.
    """
    taps = _constant(_TURNED_TAPS if transposed else _TAPS)
    out_channels, in_channels = weight.shape[:2]
    factors = paddle.matmul(taps, weight.reshape([-1, 9]), transpose_y=True).reshape([16, out_channels, in_channels])
    batch, channels, height, width = x.shape
    out = _empty([batch, in_channels if transposed else out_channels, height, width])
    source, target = _array(x := _contiguous(x)), _array(out)
    tiles = _Tiles(height, width, dilation)
    with _pool() as pool:
        for image, (first, rows) in itertools.product(range(batch), tiles.chunks(channels + out.shape[1])):
            of_input = _empty([16, channels, rows * tiles.per_row])
            tiles.transform_input(pool, source[image], first, rows, _array(of_input))
            products = paddle.matmul(factors, of_input, transpose_x=transposed)
            tiles.transform_products(pool, _array(products), first, rows, target[image])
    return out


def weight_gradient(x: paddle.Tensor, grad: paddle.Tensor, dilation: int) -> paddle.Tensor:
    """Gradient of the weights `[K, C, 3, 3]` from the input `[B, C, H, W]` and the output gradient `[B, K, H, W]`."""
    batch, in_channels, height, width = x.shape
    out_channels = grad.shape[1]
    taps = _constant(_TAPS)
    total = np.zeros((out_channels, in_channels, 9), np.float32)
    inputs, gradients = _array(x := _contiguous(x)), _array(grad := _contiguous(grad))
    tiles = _Tiles(height, width, dilation)
    with _pool() as pool:
        for image, (first, rows) in itertools.product(range(batch), tiles.chunks(out_channels)):
            of_grad = _empty([16, out_channels, rows * tiles.per_row])
            tiles.transform_gradient(pool, gradients[image], first, rows, _array(of_grad))
            for some in _parts(in_channels, max(1, WORKING_BYTES // (128 * rows * tiles.per_row))):
                of_input = _empty([16, some.stop - some.start, rows * tiles.per_row])
                tiles.transform_input(pool, inputs[image, some], first, rows, _array(of_input))
                products = paddle.matmul(of_grad, of_input, transpose_y=True).reshape([16, -1])
                part = paddle.matmul(products, taps, transpose_x=True)
                total[:, some] += _array(part).reshape(out_channels, -1, 9)
    return paddle.to_tensor(total.reshape(out_channels, in_channels, 3, 3))


class _Tiles:
    """Tiles of 2x2 outputs of a map, and the transforms of some rows of them.

    Transformed maps are `[16, C, positions]`, where positions are `[rows, d, d, columns]`: tiles of d * d interleaved maps.

    Args:
        height, width: of the map.
        dilation: d.
    """

    def __init__(self, height: int, width: int, dilation: int):
        self.height, self.width, self.dilation = height, width, dilation
        self.rows, self.columns = (-(-length // (2 * dilation)) for length in (height, width))
        self.per_row = dilation * dilation * self.columns

    def chunks(self, channels: int) -> list[tuple[int, int]]:
        """First row and number of rows of each chunk whose transformed maps are at most `WORKING_BYTES`, about equal."""
        limit = max(1, WORKING_BYTES // (64 * channels * self.per_row))
        parts = -(-self.rows // limit)
        edges = [self.rows * i // parts for i in range(parts + 1)]
        return [(first, stop - first) for first, stop in itertools.pairwise(edges)]

    def transform_input(self, pool, source: np.ndarray, first: int, rows: int, target: np.ndarray) -> None:
        """B' x B: of the map `[C, H, W]` to `[16, C, positions]`."""
        # One unit of d pixels more on each side: zeros outside of the map.
        self._transform(
            pool, source, (2 * first - 1, 2 * rows + 2, 1), target.reshape(4, 4, len(source), rows, -1), _inputs
        )

    def transform_gradient(self, pool, source: np.ndarray, first: int, rows: int, target: np.ndarray) -> None:
        """A y A': of the output gradient `[K, H, W]` to `[16, K, positions]`."""
        self._transform(pool, source, (2 * first, 2 * rows, 0), target.reshape(4, 4, len(source), rows, -1), _gradients)

    def _transform(self, pool, source, window, target, transform: Callable) -> None:
        d, (top, units, border) = self.dilation, window
        columns = self.columns + border
        start, stop = max(top * d, 0), min((top + units) * d, self.height)

        def run(some: slice) -> None:
            count = some.stop - some.start
            padded = np.zeros((count, units * d, 2 * columns * d), np.float32)
            inside = padded[:, start - top * d : stop - top * d, border * d : border * d + self.width]
            inside[...] = source[some, start:stop]
            # Columns first: of these there are half as many numbers, and they are not next to each other.
            half = np.empty((4, count, units * d, d, self.columns), np.float32)
            pairs = padded.reshape(count, units * d, columns, 2, d)
            for phase in range(d):
                transform(pairs[..., 0, phase], pairs[..., 1, phase], half[..., phase, :], axis=2)
            for j in range(4):
                pairs = half[j].reshape(count, units // 2, 2, -1)
                transform(pairs[:, :, 0], pairs[:, :, 1], target[:, j, some], axis=1)

        _in_blocks(pool, run, len(source), 8 * units * d * columns * d)

    def transform_products(self, pool, source: np.ndarray, first: int, rows: int, target: np.ndarray) -> None:
        """A' m A: of `[16, K, positions]` to those rows of the map `[K, H, W]`."""
        d, columns = self.dilation, self.columns
        products = source.reshape(4, 4, len(target), rows, d, d, columns)
        start, stop = 2 * first * d, min(2 * (first + rows) * d, self.height)

        def run(some: slice) -> None:
            count = some.stop - some.start
            half = np.empty((2, 4, count, rows, d, d, columns), np.float32)
            for j in range(4):
                _outputs(products[:, j, some], half[:, j])
            whole, sums = np.empty((count, rows, 2, d, columns, 2, d), np.float32), np.empty_like(half[:, 0])
            for parity in range(2):
                _outputs(half[parity], sums)
                for phase in range(d):
                    whole[:, :, parity, :, :, 0, phase] = sums[0, ..., phase, :]
                    whole[:, :, parity, :, :, 1, phase] = sums[1, ..., phase, :]
            target[some, start:stop] = whole.reshape(count, 2 * rows * d, -1)[:, : stop - start, : self.width]

        _in_blocks(pool, run, len(target), 16 * rows * d * d * columns)


def _inputs(even: np.ndarray, odd: np.ndarray, out: np.ndarray, axis: int) -> None:
    """B' along an axis of pairs, of which a tile covers two: `d0 - d2, d1 + d2, d2 - d1, d1 - d3`."""
    length = even.shape[axis] - 1
    before, after = ((slice(None),) * axis + (slice(i, i + length),) for i in (0, 1))
    np.subtract(even[before], even[after], out=out[0])
    np.add(odd[before], even[after], out=out[1])
    np.subtract(even[after], odd[before], out=out[2])
    np.subtract(odd[before], odd[after], out=out[3])


def _gradients(even: np.ndarray, odd: np.ndarray, out: np.ndarray, axis: int) -> None:
    """A along an axis of pairs: `y0, y0 + y1, y0 - y1, -y1`."""
    out[0] = even
    np.add(even, odd, out=out[1])
    np.subtract(even, odd, out=out[2])
    np.negative(odd, out=out[3])


def _outputs(products: np.ndarray, out: np.ndarray) -> None:
    """A' along the first axis: `m0 + m1 + m2, m1 - m2 - m3`."""
    np.add(products[1], products[2], out=out[0])
    out[0] += products[0]
    np.subtract(products[1], products[2], out=out[1])
    out[1] -= products[3]


def _pool() -> ThreadPoolExecutor:
    """As many threads as Paddle has; NumPy computes outside of Python's lock."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return ThreadPoolExecutor(int(threads) if threads.isdigit() and int(threads) else 1)


def _in_blocks(pool: ThreadPoolExecutor, run: Callable[[slice], None], channels: int, bytes_each: int) -> None:
    """Runs on blocks of channels that fit into the cache."""
    for _ in pool.map(run, _parts(channels, max(1, _BLOCK_BYTES // bytes_each))):
        pass


def _parts(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _constant(values: np.ndarray) -> paddle.Tensor:
    return paddle.to_tensor(np.ascontiguousarray(values))


def _empty(shape: list[int]) -> paddle.Tensor:
    # Not Paddle's default type, which the user may set: `_array` takes the memory as float32.
    return paddle.empty(shape, "float32")


def _contiguous(tensor: paddle.Tensor) -> paddle.Tensor:
    return tensor if tensor.is_contiguous() else tensor.contiguous()


def _array(tensor: paddle.Tensor) -> np.ndarray:
    """A contiguous float32 tensor's memory, valid while the tensor is."""
    return np.frombuffer((ctypes.c_float * tensor.size).from_address(tensor.data_ptr()), np.float32).reshape(
        tensor.shape
    )
