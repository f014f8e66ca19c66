# SPDX-License-Identifier: Apache-2.0
"""Tiles against the whole picture: equal scores where the overlap covers what a convolution sees, in bounded memory."""

import tracemalloc

from paddle_dnl.data.tiling import BLENDS, TileGrid, blend_weights, tile_starts

import numpy as np
import pytest


def _blur(picture, radius):
    """Box sums of `picture` `[H, W]` in float64, zeros outside: what a convolution of that reach computes."""
    padded = np.pad(picture.astype(np.float64), radius)
    size = 2 * radius + 1
    rows = np.lib.stride_tricks.sliding_window_view(padded, size, 0).sum(-1)
    return np.lib.stride_tricks.sliding_window_view(rows, size, 1).sum(-1)


def _strips(picture, grid, model):
    """Strips of blended scores of `model`, `[h, w] -> [K, h, w]`."""
    return grid.blend(lambda top: (model(tile) for tile in grid.row(top, lambda a, b: picture[a:b])))


def test_starts_by_hand():
    assert tile_starts(10, 4, 3) == [0, 3, 6]
    assert tile_starts(11, 4, 3) == [0, 3, 6, 7]
    assert tile_starts(4, 4, 2) == tile_starts(3, 4, 2) == [0]
    assert tile_starts(5, 4, 4) == [0, 1]


@pytest.mark.parametrize("blend", ["cosine", "linear"])
@pytest.mark.parametrize("overlap", [1, 3, 8])
def test_ramps_of_neighbours_add_up_to_one(blend, overlap):
    weights = blend_weights(16, overlap, blend)
    np.testing.assert_allclose(weights[-overlap:] + weights[:overlap], 1, atol=1e-6)
    assert (weights[: overlap // 4] == 0).all() and (overlap == 8 or weights[8] == 1)
    assert (blend_weights(16, overlap, blend, first=True)[:8] == 1).all()


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("size", [(40, 64), (41, 63), (16, 16), (7, 50), (100, 17)])
def test_a_pointwise_model_gives_the_whole_picture(size, blend):
    picture = np.random.default_rng(0).normal(size=size).astype(np.float32)
    grid = TileGrid(size, (16, 20), (5, 4), blend)
    strips = list(_strips(picture, grid, lambda tile: np.stack([tile, -tile])))
    assert len(strips) == len(grid.tops)
    np.testing.assert_allclose(np.concatenate(strips, axis=1), np.stack([picture, -picture]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("blend", BLENDS)
def test_a_convolution_gives_the_whole_picture_where_a_quarter_of_the_overlap_covers_its_reach(blend):
    picture = np.random.default_rng(0).normal(size=(60, 80))
    for radius, equal in ((3, True), (5, False)):
        whole = _blur(picture, radius)
        grid = TileGrid((60, 80), (24, 24), (12, 12), blend)
        found = np.concatenate(list(_strips(picture, grid, lambda tile, r=radius: _blur(tile, r)[None])), axis=1)[0]
        assert (np.abs(found - whole).max() < 1e-4) == equal


def test_seams_are_smooth():
    """A model that knows which tile it sees: its steps of 1 become ramps over the overlap."""
    grid, count = TileGrid((8, 60), (8, 24), (0, 12)), iter(range(99))
    found = next(_strips(np.zeros((8, 60)), grid, lambda tile: np.full((1, *tile.shape), float(next(count)))))
    assert np.abs(np.diff(found[0, 0])).max() < 0.3 and found[0, 0, 0] == 0 and found[0, 0, -1] == 3


def test_memory_follows_the_width_and_not_the_height():
    peaks = []
    for height in (1000, 4000):
        picture = np.zeros((height, 500), np.uint8)
        tracemalloc.start()
        rows = sum(
            len(strip.argmax(0)) for strip in _strips(picture, TileGrid((height, 500), (64, 64), (16, 16)), _nine)
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert rows == height
    assert peaks[1] < 1.1 * peaks[0]


def _nine(tile):
    return np.zeros((9, *tile.shape), np.float32)


@pytest.mark.parametrize(("overlap", "blend"), [((9, 0), "cosine"), ((-1, 0), "cosine"), ((2, 2), "gauss")])
def test_wrong_settings(overlap, blend):
    with pytest.raises(ValueError, match="overlap|blend"):
        TileGrid((64, 64), (16, 16), overlap, blend)


@pytest.mark.parametrize("kind", ["scores", "classes"])
def test_more_than_256_classes_are_not_wrapped(kind):
    label = np.random.default_rng(0).integers(0, 300, (20, 30))
    grid = TileGrid(label.shape, (8, 12), (2, 4))

    def results(top):
        tiles = grid.row(top, lambda a, b: label[a:b])
        yield from tiles if kind == "classes" else (np.moveaxis(np.eye(300, dtype=np.float32)[t], -1, 0) for t in tiles)

    np.testing.assert_array_equal(np.concatenate(list(grid.labels(results))), label)
