# SPDX-License-Identifier: Apache-2.0
"""The overlap of attention with labels, on maps small enough to be worked out by hand."""

from paddle_dnl.analysis.nonlocal_maps import BlockAttention
from paddle_dnl.analysis.statistics import (
    AttentionStatistics,
    boundary_region,
    overlap,
    sample_queries,
    shares,
    top_weights,
)
from paddle_dnl.errors import UsageError

import numpy as np
import pytest

# Two categories, a column of pixels to be ignored at the right.
LABEL = np.array(
    [
        [0, 0, 1, 1, 255],
        [0, 0, 1, 1, 255],
        [0, 0, 0, 1, 255],
        [0, 0, 0, 0, 255],
    ],
    np.uint8,
)


def test_contour_is_both_sides_of_a_change_and_not_of_ignored_pixels():
    wanted = np.array([[0, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 0]], bool)
    # (1, 3) has (2, 3), also 1, below and (1, 2), also 1, to the left: it is no contour.
    wanted[1, 3] = False
    np.testing.assert_array_equal(boundary_region(LABEL, 1), wanted)


def test_wider_boundaries_grow_by_euclidean_distance():
    label = np.zeros((1, 7), np.uint8)
    label[0, 3:] = 1  # contour: columns 2 and 3
    for width, columns in ((1, (2, 3)), (2, (1, 2, 3, 4)), (3, (0, 1, 2, 3, 4, 5))):
        np.testing.assert_array_equal(np.flatnonzero(boundary_region(label, width)), columns)
    corner = np.zeros((3, 3), np.uint8)
    corner[0, 0] = 1  # contour: (0, 0), (0, 1), (1, 0); only (2, 2) is further than 2 away, by sqrt(5)
    assert boundary_region(corner, 2).sum() == 8 and boundary_region(corner, 3)[2, 2]
    assert not boundary_region(np.zeros((3, 3), np.uint8), 5).any()


def test_ignored_pixels_are_never_in_the_boundary():
    assert not boundary_region(LABEL, 9)[:, 4].any() and boundary_region(LABEL, 9)[:, :4].all()


def test_shares_and_overlap_by_hand():
    # Two positions: the left two columns (8 pixels, all category 0) and the other three (12 pixels).
    cells = np.repeat([[0, 0, 1, 1, 1]], 4, axis=0)
    own, labelled = shares(LABEL == 0, cells, 2), shares(LABEL != 255, cells, 2)
    np.testing.assert_allclose(own, [1, 3 / 12])
    np.testing.assert_allclose(labelled, [1, 8 / 12])
    np.testing.assert_allclose(shares(LABEL == 0, cells, 3)[2], 0)
    weights = np.array([[0.5, 0.5], [0.25, 0.75], [0.0, 1.0], [1.0, 0.0]])
    expected = [
        (0.5 + 0.5 * 3 / 12) / (0.5 + 0.5 * 8 / 12),
        (0.25 + 0.75 / 4) / (0.25 + 0.75 * 2 / 3),
        3 / 8,
        1.0,
    ]
    np.testing.assert_allclose(overlap(weights, own, labelled), expected)
    assert np.isnan(overlap(np.array([[0.0, 0.0]]), own, labelled)[0])


def test_top_takes_the_largest_and_at_least_one():
    weights = np.array([[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.25, 0.25]])
    np.testing.assert_array_equal(top_weights(weights, 0.5), [[0, 1, 0, 1], [1, 1, 0, 0]])
    np.testing.assert_array_equal(top_weights(weights, 0.01), [[0, 1, 0, 0], [1, 0, 0, 0]])


def test_queries_are_labelled_repeatable_and_even():
    first = sample_queries(LABEL, 4000, 3, 0)
    np.testing.assert_array_equal(first, sample_queries(LABEL, 4000, 3, 0))
    assert (first != sample_queries(LABEL, 4000, 3, 1)).any()
    counts = np.bincount(first, minlength=20).reshape(4, 5)
    assert (counts[:, 4] == 0).all() and counts[:, :4].min() > 180 and counts[:, :4].max() < 330
    assert len(sample_queries(np.full((2, 2), 255), 5, 0, 0)) == 0


def _attention(query, key, mask=None, **settings):
    base = dict(name="block", size=(1, 4), mode="embedded_gaussian", combine="add", scale=1.0)
    return BlockAttention(**{**base, **settings}, query=query, key=key, mask=mask)


def test_a_whole_image_by_hand():
    """Four positions in a row, one pixel each, categories 0 0 1 1, boundary of width 1: the two in the middle."""
    label, cells = np.array([[0, 0, 1, 1]], np.uint8), np.arange(4)[None]
    # Rows of the pairwise term: 0 and 1 look at themselves mostly, 2 and 3 at everything evenly.
    logits = np.log(np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.25] * 4, [0.25] * 4]))
    mask = np.log(np.array([0.1, 0.3, 0.4, 0.2]))
    statistics = AttentionStatistics(queries=500, seed=5, boundary_width=1)
    statistics.add(_attention(logits, np.eye(4), mask), label, cells)
    drawn = np.bincount(sample_queries(label, 500, 5, 0), minlength=4) / 500
    found = {name: value["mean"] for name, value in statistics.result()["measures"].items()}
    pairwise = drawn @ [0.8, 0.8, 0.5, 0.5]
    np.testing.assert_allclose(found["pairwise_category"], pairwise)
    np.testing.assert_allclose(found["pairwise_boundary"], drawn @ [0.2, 0.8, 0.5, 0.5])
    np.testing.assert_allclose(found["unary_boundary"], 0.7)
    unary_category = drawn @ [0.4, 0.4, 0.6, 0.6]
    np.testing.assert_allclose(found["total_category"], (pairwise + unary_category) / 2)
    np.testing.assert_allclose(found["random_category"], 0.5)
    np.testing.assert_allclose(found["random_boundary"], 0.5)
    # The tenth of four positions is one: rows 2 and 3 are even, so the first position counts.
    np.testing.assert_allclose(found["pairwise_category_top"], drawn @ [1, 1, 0, 0])
    np.testing.assert_allclose(found["unary_boundary_top"], 1)


def test_images_count_alike_and_their_spread_is_the_standard_error():
    label, cells = np.array([[0, 0, 1, 1]], np.uint8), np.arange(4)[None]
    statistics = AttentionStatistics(queries=7, seed=0, boundary_width=1)
    for mask in ([0.1, 0.3, 0.4, 0.2], [0.5, 0.0, 0.1, 0.4]):
        with np.errstate(divide="ignore"):
            statistics.add(_attention(None, None, np.log(np.array(mask))), label, cells)
    result = statistics.result()
    assert result["images"] == 2 and "pairwise_category" not in result["measures"]
    np.testing.assert_allclose(result["measures"]["unary_boundary"]["mean"], 0.4)
    np.testing.assert_allclose(result["measures"]["unary_boundary"]["standard_error"], 0.3)


def test_an_image_without_labels_is_passed_over():
    statistics = AttentionStatistics(queries=7, seed=0, boundary_width=1)
    statistics.add(_attention(np.zeros((4, 2)), np.ones((4, 2))), np.full((1, 4), 255), np.arange(4)[None])
    assert statistics.result()["measures"] == {} and statistics.images == 1


def test_modes_without_softmax_are_refused():
    statistics = AttentionStatistics(queries=7, seed=0, boundary_width=1)
    attention = _attention(np.zeros((4, 2)), np.ones((4, 2)), mode="dot_product")
    with pytest.raises(UsageError, match="dot_product"):
        statistics.add(attention, np.zeros((1, 4), np.uint8), np.arange(4)[None])
