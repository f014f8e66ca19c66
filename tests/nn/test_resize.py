# SPDX-License-Identifier: Apache-2.0
"""Bilinear resizing in its three conventions against NumPy."""

from paddle_dnl.nn.resize import resize, spatial_size

import numpy as np
import paddle
import pytest


def np_axis(length, size, align_corners, align_mode):
    """The [size, length] interpolation matrix of one axis."""
    target = np.arange(size)
    if align_corners:
        source = target * (length - 1) / max(size - 1, 1)
    elif align_mode == 1:
        source = target * length / size
    else:
        source = np.maximum((target + 0.5) * length / size - 0.5, 0)
    low = np.minimum(source.astype(int), length - 1)
    high = np.minimum(low + 1, length - 1)
    matrix = np.zeros((size, length))
    matrix[target, low] += 1 - (source - low)
    matrix[target, high] += source - low
    return matrix


def np_resize(x, size, align_corners, align_mode):
    rows = np_axis(x.shape[2], size[0], align_corners, align_mode)
    columns = np_axis(x.shape[3], size[1], align_corners, align_mode)
    return np.einsum("ih,bchw,jw->bcij", rows, x, columns)


@pytest.mark.parametrize("align_corners, align_mode", [(False, 0), (False, 1), (True, 0), (True, 1)])
@pytest.mark.parametrize("size", [(33, 40), (5, 3), (9, 13), (72, 104)])
def test_equals_numpy(align_corners, align_mode, size):
    x = np.random.default_rng(0).standard_normal((2, 3, 9, 13)).astype("float32")
    out = resize(paddle.to_tensor(x), size, align_corners, align_mode).numpy()
    np.testing.assert_allclose(out, np_resize(x, size, align_corners, align_mode), atol=1e-5)


def test_half_precision_is_resized_in_float32():
    x = paddle.randn([1, 2, 4, 4]).cast("float16")
    out = resize(x, (8, 8))
    assert out.dtype == paddle.float32
    np.testing.assert_allclose(out.numpy(), np_resize(x.cast("float32").numpy(), (8, 8), False, 0), atol=1e-6)


class _Doubled(paddle.nn.Layer):
    def forward(self, x):
        height, width = spatial_size(x)
        return resize(x, (height * 2, width * 2)), resize(x[:, :, ::2, ::2], spatial_size(x), align_mode=1)


@pytest.mark.parametrize("shape", [[1, 2, 6, 8], [-1, 2, 6, 8], [-1, 2, -1, -1], [1, 2, 6, -1]], ids=str)
def test_static_graph(shape, tmp_path):
    x = paddle.randn([1, 2, 6, 8])
    layer = _Doubled()
    expected = [y.numpy() for y in layer(x)]
    spec = [paddle.static.InputSpec(shape, "float32", "x")]
    paddle.jit.save(paddle.jit.to_static(_Doubled(), input_spec=spec, full_graph=True), str(tmp_path / "m"))
    for actual, wanted in zip(paddle.jit.load(str(tmp_path / "m"))(x), expected, strict=True):
        np.testing.assert_allclose(actual.numpy(), wanted, atol=1e-6)
