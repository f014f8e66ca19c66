# SPDX-License-Identifier: Apache-2.0
"""Resizing of any number of channels is OpenCV's, channel by channel."""

from paddle_dnl.data.images.resizing import resized

import cv2
import numpy as np
import pytest


@pytest.mark.parametrize("channels", [1, 3, 128, 129, 150, 700])
def test_every_channel_by_itself(channels):
    array = np.random.default_rng(0).random((6, 9, channels), np.float32)
    found = resized(array, (13, 4))
    assert found.shape == (4, 13, channels)
    for index in {0, channels // 2, channels - 1}:
        np.testing.assert_allclose(found[..., index], cv2.resize(array[..., index], (13, 4)), rtol=0, atol=1e-6)


def test_maps_stay_maps():
    labels = np.arange(12, dtype=np.uint16).reshape(3, 4)
    np.testing.assert_array_equal(resized(labels, (8, 6), cv2.INTER_NEAREST), labels.repeat(2, 0).repeat(2, 1))
