# SPDX-License-Identifier: Apache-2.0
"""3x3 convolutions of an OpenVINO graph by Winograd's algorithm F(4x4, 3x3): 36 products per 4x4 outputs in place of 144
("Fast Algorithms for Convolutional Neural Networks", Lavin and Gray, CVPR 2016).

    output = A' [(G weight G') * (B' input B)] A        for each tile: 6x6 inputs, 4x4 outputs, channels summed

OpenVINO's CPU plugin has no such kernel, so a convolution is replaced by operators that it computes fast: the sums over channels
are 36 matrix products, the transforms around them sums of slices. With dilation d every d-th row and column is a map of its own.
Rounding errors are some times those of the direct form: see docs/deploy.md.
"""

import os
from collections.abc import Sequence

import numpy as np

_VERSION = 2
# `0` keeps the direct form of all convolutions.
VARIABLE = "PADDLE_DNL_WINOGRAD"

_TILE = 4  # outputs of a tile in each direction
_TAPS = _TILE + 2  # its inputs
# Where polynomials of degree 5 are evaluated, beside infinity. Rounding errors are 11 times those of the direct sum (root mean
# square, 512 channels). With 5/8 and 3/2 in place of 1 and 2 they are 5 times, but each sum has more factors to multiply by.
_POINTS = (0, 1, -1, 2, -2)


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """B' `[6, 6]`, G `[6, 3]` and A' `[4, 6]` of the points, by Cook and Toom's construction."""
    of_input, kernel, output = np.zeros((_TAPS, _TAPS)), np.zeros((_TAPS, 3)), np.zeros((_TILE, _TAPS))
    for i, point in enumerate(_POINTS):
        others = [other for other in _POINTS if other != point]
        of_input[i, :-1] = np.poly(others)[::-1]
        kernel[i] = point ** np.arange(3) / np.prod(point - np.array(others))
        output[:, i] = point ** np.arange(_TILE)
    of_input[-1] = np.poly(_POINTS)[::-1]
    kernel[-1, -1] = output[-1, -1] = 1
    return of_input, kernel, output


_INPUT, _KERNEL, _OUTPUT = _matrices()

# What the transforms cost, in multiplications of a matrix product: for each number that they write, and for each transformed
# weight, which a product of few tiles reads from memory without using it often.
_PER_NUMBER, _PER_WEIGHT = 256, 32
# Four times as many weights and a longer start buy little with fewer tiles: DNLNet-R18 at 256x512 (128 tiles) took 85
# to 112 ms in place of 97, and 530 MB in place of 254.
_LEAST_TILES = 256


def is_enabled() -> bool:
    """Unless `PADDLE_DNL_WINOGRAD` is 0."""
    return os.environ.get(VARIABLE, "1") != "0"


def version() -> int:
    """Changes with what is replaced and by what, so that remembered times are of the same operators; 0 if nothing is."""
    return _VERSION if is_enabled() else 0


def is_faster(in_channels: int, out_channels: int, height: int, width: int, dilation: Sequence[int]) -> bool:
    """Whether the multiplications saved take longer than the transforms.

    Args:
        in_channels, out_channels: of the convolution.
        height, width: of its output.
        dilation: of rows and columns.
    """
    tiles = np.prod([_tiles(length, step) * step for length, step in zip((height, width), dilation, strict=True)])
    if tiles < _LEAST_TILES:
        return False
    products = in_channels * out_channels
    saved = (9 * height * width - _TAPS**2 * int(tiles)) * products
    transforms = _PER_NUMBER * _TAPS**2 * int(tiles) * (in_channels + out_channels)
    return saved > transforms + _PER_WEIGHT * _TAPS**2 * products


def _tiles(length: int, dilation: int) -> int:
    """Tiles along an axis of each of the interleaved maps."""
    return -(-length // (dilation * _TILE))


def replace_convolutions(model) -> int:
    """Replaces in place what `is_faster` names among the ungrouped 3x3 convolutions of stride 1 with constant weights and fixed
    height and width; the batch may be free.

    Args:
        model: `openvino.Model` in float32, as read from a file.

    Returns:
        How many were replaced.
    """
    replaced = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convolution":
            continue
        weights, shape = node.input_value(1).get_node(), node.output(0).get_partial_shape()
        if weights.get_type_name() != "Constant" or len(weights.shape) != 4 or list(weights.shape[2:]) != [3, 3]:
            continue
        settings = node.get_attributes()
        plain = list(settings["strides"]) == [1, 1] and settings["auto_pad"] in ("explicit", "valid")
        fixed = all(dimension.is_static for dimension in list(shape)[1:])
        if not plain or not fixed or str(node.get_output_element_type(0)) != "<Type: 'float32'>":
            continue
        out_channels, height, width = (dimension.get_length() for dimension in list(shape)[1:])
        if is_faster(weights.shape[1], out_channels, height, width, settings["dilations"]):
            pads = settings["pads_begin"]
            new = _convolution(node.input_value(0), node.input_value(1), (height, width), settings["dilations"], pads)
            new.set_friendly_name(node.get_friendly_name())
            node.output(0).replace(new.output(0))
            replaced += 1
    if replaced:
        model.validate_nodes_and_infer_types()
    return replaced


def _convolution(x, weights, size: tuple[int, int], dilation: Sequence[int], pads: Sequence[int]):
    """The operators that take the place of a convolution.

    Args:
        x: output of a node, `[N, C, H, W]`, of which N may be free.
        weights: of a constant, `[K, C, 3, 3]`.
        size: height and width of the result.
        dilation: of rows and columns.
        pads: rows above and columns left of the map; what it needs below and right follows from `size`.

    Returns:
        A node, `[N, K, H', W']`.
    """
    import openvino.opset8 as ops

    batch, channels, *source = (d.get_length() if d.is_static else -1 for d in x.get_partial_shape())
    out_channels = weights.get_shape()[0]
    (dy, dx), (rows, columns) = dilation, map(_tiles, size, dilation)
    # A tile takes two of its outputs' rows beyond them, so that one row of tiles more covers all that is read.
    padded = [(count + 1) * _TILE * step for count, step in zip((rows, columns), dilation, strict=True)]
    end = [total - begin - length for total, begin, length in zip(padded, pads, source, strict=True)]
    x = ops.pad(x, _ints(0, 0, *pads), _ints(0, 0, *end), "constant", _number(0))
    # Place in the tile, channel, image, map of the dilation, tile.
    x = ops.reshape(x, _ints(batch, channels, rows + 1, _TILE, dy, columns + 1, _TILE, dx), False)
    x = ops.transpose(x, _ints(3, 6, 1, 0, 4, 7, 2, 5))
    # Sums are of few axes whose last one is long and known: with a free batch OpenVINO vectorises no other.
    x = ops.reshape(x, _ints(_TILE, _TILE, -1, rows + 1, columns + 1), False)
    transformed = []
    for row in _transform(_INPUT, _reach(_parts(x, 0, _TILE), 3, rows, (_TILE, -1, dy * dx * rows * (columns + 1)))):
        parts = _parts(ops.reshape(row, _ints(_TILE, -1, columns + 1), False), 0, _TILE)
        transformed += _transform(_INPUT, _reach(parts, 2, columns, (1, -1, dy * dx * rows * columns)))
    transformed = ops.reshape(ops.concat(transformed, 0), _ints(_TAPS**2, channels, -1), False)
    products = ops.matmul(_transformed_weights(weights), transformed, False, False)
    products = ops.reshape(products, _ints(_TAPS, _TAPS, -1, dy * dx * rows * columns), False)
    out = [
        part
        for row in _transform(_OUTPUT, _parts(products, 0, _TAPS))
        for part in _transform(_OUTPUT, _parts(row, 1, _TAPS))
    ]
    out = ops.reshape(ops.concat(out, 0), _ints(_TILE, _TILE, out_channels, batch, dy, dx, rows, columns), False)
    out = ops.transpose(out, _ints(3, 2, 6, 0, 4, 7, 1, 5))
    out = ops.reshape(out, _ints(batch, out_channels, rows * _TILE * dy, columns * _TILE * dx), False)
    return ops.slice(out, _ints(0, 0), _ints(*size), _ints(1, 1), _ints(2, 3))


def _transformed_weights(weights):
    """`[36, K, C]`, computed by OpenVINO's matrix product when a model is loaded: neither the file of a compiled model nor the
    digest by which it is found then covers four times as many numbers."""
    import openvino.opset8 as ops

    out_channels, channels = list(weights.get_shape())[:2]
    taps = np.einsum("ia,jb->ijab", _KERNEL, _KERNEL).reshape(_TAPS**2, 9).astype(np.float32)
    product = ops.matmul(ops.constant(taps), ops.reshape(weights, _ints(-1, 9), False), False, True)
    node = ops.reshape(product, _ints(_TAPS**2, out_channels, channels), False)
    for one in (product, node):
        # OpenVINO's attribute; without it the graph would be right, but its file large and the start slow.
        one.get_rt_info()["DisableConstantFolding_0"] = ""
    return node


def _transform(matrix: np.ndarray, parts: list) -> list:
    """The rows of a matrix times the vector of `parts`, leaving out zeros and ones."""
    import openvino.opset8 as ops

    out = []
    for row in matrix:
        # A positive one first, so that the others are added or subtracted.
        terms = sorted(
            ((factor, part) for factor, part in zip(row, parts, strict=True) if factor), key=lambda t: t[0] < 0
        )
        scaled = [ops.multiply(part, _number(abs(f))) if abs(f) != 1 else part for f, part in terms]
        total = scaled[0]
        for (factor, _), part in zip(terms[1:], scaled[1:], strict=True):
            total = (ops.subtract if factor < 0 else ops.add)(total, part)
        out.append(total)
    return out


def _reach(parts: list, axis: int, tiles: int, shape: Sequence[int]) -> list:
    """The six inputs of all tiles along an axis: four of their own and the first two of the next tile.

    Args:
        parts: those at the four places in a tile.
        axis: of the tiles, of which `parts` have one more.
        tiles: how many there are.
        shape: of the result.
    """
    import openvino.opset8 as ops

    def window(part, start: int):
        taken = ops.slice(part, _ints(start), _ints(start + tiles), _ints(1), _ints(axis))
        return ops.reshape(taken, _ints(*shape), False)

    return [window(part, 0) for part in parts] + [window(part, 1) for part in parts[: _TAPS - _TILE]]


def _parts(node, axis: int, count: int) -> list:
    import openvino.opset8 as ops

    return ops.split(node, ops.constant(np.int64(axis)), count).outputs()


def _ints(*values: int):
    import openvino.opset8 as ops

    return ops.constant(np.array(values, np.int64))


def _number(value: float):
    import openvino.opset8 as ops

    return ops.constant(np.float32(value))
