# SPDX-License-Identifier: Apache-2.0
"""The compact list of pairs is the list of pairs."""

import os
import pickle
from pathlib import Path

from paddle_dnl.data.file_list import FileList

import pytest

PAIRS = [
    ["/data/images/a.png", "/data/labels/a.png"],
    ["/data/images/b c.png", None],
    ["/elsewhere/x.png", "relative/y.png"],
    ["/data/", "/data"],
    [os.fsdecode("街道".encode("gbk")), "/data/é\n.png"],
    ["", None],
]


@pytest.mark.parametrize("pairs", [PAIRS, PAIRS[::-1], PAIRS[1:2], [], [["a", "b"]], [["x/a", "x/a"]]])
def test_it_is_the_list(pairs):
    found = FileList(pairs)
    assert found == pairs and list(found) == pairs and len(found) == len(pairs) and bool(found) == bool(pairs)
    assert all(list(found.between(i, len(pairs))) == pairs[i:] for i in range(len(pairs) + 1))
    assert found[1:] == pairs[1:] and found[::-2] == pairs[::-2] and isinstance(found[:1], FileList)
    assert pickle.loads(pickle.dumps(found)) == found
    for index in range(-len(pairs), len(pairs)):
        assert found[index] == pairs[index]
    with pytest.raises(IndexError):
        found[len(pairs)]


def test_it_differs_from_others():
    assert FileList(PAIRS) != PAIRS[1:] and FileList(PAIRS) != FileList(PAIRS[::-1]) and FileList([]) != ""


def test_paths_are_taken_and_memory_is_that_of_the_names():
    found = FileList((Path(f"/data/images/{i:06}.png"), Path(f"/data/labels/{i:06}.png")) for i in range(1000))
    assert found[999] == ["/data/images/000999.png", "/data/labels/000999.png"]
    assert len(pickle.dumps(found)) < 1000 * (2 * len("images/000000.png") + 2 * 8) + 1000
