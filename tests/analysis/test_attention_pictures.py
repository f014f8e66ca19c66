# SPDX-License-Identifier: Apache-2.0
"""Overlays, markers, samples and filters: pictures whose pixels are known."""

from paddle_dnl.analysis import pictures as draw

import numpy as np

GREY = np.full((60, 80, 3), 128, np.uint8)


def test_relative_ignores_one_outlier_and_keeps_zero():
    heat = np.linspace(0, 1, 1000)
    heat[-1] = 50
    found = draw.relative(heat)
    assert found.max() == 1 and found[0] == 0 and 0.45 < found[500] < 0.55
    assert draw.relative(np.zeros((2, 2))).max() == 0 and draw.relative(np.array([-1.0, 2.0]))[0] == 0


def test_overlay_is_bright_where_the_weight_is():
    heat = np.zeros((60, 80))
    heat[10:20, 30:50] = 1
    found = draw.heat_overlay(GREY, heat).astype(int).sum(2)
    assert found[10:20, 30:50].min() > found[30:, :].max() + 150


def test_marker_is_where_the_query_is_and_only_there():
    found = draw.mark(GREY, 40, 30)
    changed = np.argwhere((found != GREY).any(2))
    np.testing.assert_allclose(changed.mean(0), [30, 40], atol=1)
    assert (GREY == 128).all() and np.abs(changed - [30, 40]).max() < 16
    assert (draw.mark(GREY, 0, 0) != GREY).any()  # half outside


def test_samples_lie_at_their_pixels_with_area_by_weight():
    x, y = np.array([[20.0, 60.0, 1e9]]), np.array([[15.0, 45.0, 0.0]])
    found = draw.draw_samples(GREY, x, y, np.array([[0.8, 0.2, 0.0]]))
    changed = (found != GREY).any(2)
    large, small = changed[:30, :40].sum(), changed[30:, 40:].sum()
    assert changed[15, 20] and changed[45, 60] and large > 1.5 * small


def test_filters_are_red_for_plus_and_blue_for_minus_on_one_scale():
    kernels = np.zeros((3, 3, 3))
    kernels[0, 1, 1], kernels[2, 0, 2] = 2.0, -1.0
    sheet = draw.draw_filters(kernels, columns=2, cell=30)
    step = 30 + 6
    middle = sheet[6 + 15, 6 + 15].astype(int)
    corner = sheet[6 + step + 5, 6 + 25].astype(int)
    assert middle[2] > 180 and middle[0] < 80 and corner[0] > corner[2]
    assert corner.min() > middle.min()  # half the size: paler
    assert (sheet[6 + 15, 6 + step + 15] == 255).all()  # the second kernel is zero


def test_sheet_holds_all_panels():
    found = draw.sheet([[(GREY, "a"), (GREY, "b")], [(GREY, "c")]], width=40)
    assert found.shape == (2 * (30 + 24 + 6), 2 * 46, 3)
    assert (found[64 + 24 :, 50:] == 255).all()
