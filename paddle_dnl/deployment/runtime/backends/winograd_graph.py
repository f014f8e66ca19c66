# SPDX-License-Identifier: Apache-2.0
"""Replaces 3x3 convolutions of an OpenVINO graph by Winograd's algorithm F(4x4, 3x3).

    output = A' [(G weight G') * (B' input B)] A        for each tile: 6x6 inputs, 4x4 outputs, summed over channels

A tile takes 36 multiplications instead of 144 ("Fast Algorithms for Convolutional Neural Networks", Lavin and Gray,
CVPR 2016). OpenVINO's CPU plugin has no such kernel, so a convolution becomes operators that the plugin computes fast:
36 matrix products sum over the channels, and sums of slices compute the transforms. With dilation d, the d x d sets of
every d-th row and column are independent maps. Rounding errors are several times those of direct convolution, see
docs/deploy.md.
"""

import os
from collections.abc import Sequence

import numpy as np

_VERSION = 2
# Environment variable; `0` disables the replacement.
VARIABLE = "PADDLE_DNL_WINOGRAD"

_TILE = 4  # outputs of a tile along each axis
_TAPS = _TILE + 2  # inputs of a tile along each axis
# Interpolation points of polynomials of degree 5, besides infinity. Rounding errors are 11 times those of direct
# convolution (root mean square, 512 channels). 5/8 and 3/2 instead of 1 and 2 would reduce them to 5 times
# at the cost of more multiplications.
_POINTS = (0, 1, -1, 2, -2)


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns B' `[6, 6]`, G `[6, 3]` and A' `[4, 6]` for the points (Cook-Toom construction)."""
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

# Cost of the transforms in multiplications of a matrix product: per number that they write, and per transformed weight
# (with few tiles, reading the weights from memory dominates).
_PER_NUMBER, _PER_WEIGHT = 256, 32
# With fewer tiles the gain does not justify four times the weights and a longer start: DNLNet-R18 at 256x512 (128
# tiles) took 85 to 112 ms instead of 97, and 530 MB instead of 254.
_MIN_TILES = 256


def is_enabled() -> bool:
    """False if the environment variable PADDLE_DNL_WINOGRAD is 0."""
    return os.environ.get(VARIABLE, "1") != "0"


def version() -> int:
    """Version of the replacement, for the keys of stored measurements; 0 if it is disabled."""
    return _VERSION if is_enabled() else 0


def is_faster(in_channels: int, out_channels: int, height: int, width: int, dilation: Sequence[int]) -> bool:
    """Estimates whether the saved multiplications take longer than the transforms.

    Args:
        in_channels, out_channels: channels of the convolution.
        height, width: size of its output.
        dilation: dilation of rows and columns.
    """
    tiles = np.prod([_tiles(length, step) * step for length, step in zip((height, width), dilation, strict=True)])
    if tiles < _MIN_TILES:
        return False
    products = in_channels * out_channels
    saved = (9 * height * width - _TAPS**2 * int(tiles)) * products
    transforms = _PER_NUMBER * _TAPS**2 * int(tiles) * (in_channels + out_channels)
    return saved > transforms + _PER_WEIGHT * _TAPS**2 * products


def _tiles(length: int, dilation: int) -> int:
    """Number of tiles along an axis in each of the interleaved maps of a dilation."""
    return -(-length // (dilation * _TILE))


def replace_convolutions(model) -> int:
    """Replaces convolutions in place where `is_faster` estimates a gain.

    Considered are ungrouped 3x3 convolutions of stride 1 with constant weights, fixed height and width, and any batch
    size.

    Args:
        model: `openvino.Model` in float32, as read from a file.

    Returns:
        Number of replaced convolutions.
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
    """Builds the operators that replace a convolution.

    Args:
        x: output of a node, `[N, C, H, W]`; N may be free.
        weights: output of a constant, `[K, C, 3, 3]`.
        size: height and width of the result.
        dilation: dilation of rows and columns.
        pads: padding at the top and on the left; the padding at the bottom and on the right follows from `size`.

    Returns:
        A node, `[N, K, H', W']`.
    """
    import openvino.opset8 as ops

    batch, channels, *source = (d.get_length() if d.is_static else -1 for d in x.get_partial_shape())
    out_channels = weights.get_shape()[0]
    (dy, dx), (rows, columns) = dilation, map(_tiles, size, dilation)
    # A tile reads two rows below its outputs, so the input has one more row and column of tiles.
    padded = [(count + 1) * _TILE * step for count, step in zip((rows, columns), dilation, strict=True)]
    end = [total - begin - length for total, begin, length in zip(padded, pads, source, strict=True)]
    x = ops.pad(x, _ints(0, 0, *pads), _ints(0, 0, *end), "constant", _number(0))
    # Order of axes: position in the tile, channel, image, map of the dilation, tile.
    x = ops.reshape(x, _ints(batch, channels, rows + 1, _TILE, dy, columns + 1, _TILE, dx), False)
    x = ops.transpose(x, _ints(3, 6, 1, 0, 4, 7, 2, 5))
    # Few axes with a long last axis of known size: with a free batch OpenVINO vectorizes the sums only in this form.
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
    """Builds G weight G' `[36, K, C]`, which OpenVINO computes when it loads the model.

    The file of the compiled model and the digest in its cache key therefore do not contain four times as many numbers.
    """
    import openvino.opset8 as ops

    out_channels, channels = list(weights.get_shape())[:2]
    taps = np.einsum("ia,jb->ijab", _KERNEL, _KERNEL).reshape(_TAPS**2, 9).astype(np.float32)
    product = ops.matmul(ops.constant(taps), ops.reshape(weights, _ints(-1, 9), False), False, True)
    node = ops.reshape(product, _ints(_TAPS**2, out_channels, channels), False)
    for one in (product, node):
        # Attribute of OpenVINO. Without it the results are the same, but the file is larger and the start slower.
        one.get_rt_info()["DisableConstantFolding_0"] = ""
    return node


def _transform(matrix: np.ndarray, parts: list) -> list:
    """Multiplies a matrix by the vector `parts`, skipping zeros and ones; returns one node per row."""
    import openvino.opset8 as ops

    out = []
    for row in matrix:
        # A positive term first, so that the others are added to it or subtracted from it.
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
    """Returns the six inputs of all tiles along an axis: four of the tile itself and the first two of the next tile.

    Args:
        parts: nodes for the four positions in a tile.
        axis: axis of the tiles; `parts` have one tile more than the result.
        tiles: number of tiles.
        shape: shape of the result.
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
