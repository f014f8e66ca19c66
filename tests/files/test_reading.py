# SPDX-License-Identifier: Apache-2.0
"""Files that are no files or nested without end, in the place of each file that is read: an error, at once."""

import argparse
import os
from pathlib import Path

from paddle_dnl.cli.analysis import report
from paddle_dnl.data.base_dataset import SegmentationDataset
from paddle_dnl.data.checking.check import check_dataset
from paddle_dnl.data.classes import read_classes
from paddle_dnl.data.images.list_files import read_list
from paddle_dnl.data.images.video_files import Video
from paddle_dnl.data.prepare.annotations import read_json
from paddle_dnl.data.prepare.formats import cvat
from paddle_dnl.data.scenes import mini_cityscapes
from paddle_dnl.deployment.runtime import selection
from paddle_dnl.deployment.runtime.operators import require_known_operators
from paddle_dnl.errors import PaddleDnlError
from paddle_dnl.files import atomic, outputs
from paddle_dnl.files.reading import open_file, parse_json, read_bytes
from paddle_dnl.weights.manifest import read_manifest, require_unbroken_seal

import cv2
import numpy as np
import pytest
from time_limit import at_most

DEEP = b"[" * 200_000
READERS = {
    "scores.json": lambda path: report._more_scores(argparse.Namespace(scores=path, run_dir=None)),
    "timings.json": report._timings,
    "annotations.json": read_json,
    "annotations.xml": lambda path: cvat.read(path, None),
    "classes.txt": read_classes,
    "list.txt": lambda path: read_list(path, path.parent),
    "video.mp4": lambda path: Video(str(path)),
    "graph.json": require_known_operators,
    "graph.onnx": require_known_operators,
    "manifest.json": read_manifest,
    "deploy.yaml": require_unbroken_seal,
    mini_cityscapes.SETTINGS: lambda path: mini_cityscapes.generate(path.parent, 1, 0),
}
JSON = sorted(name for name in READERS if name.endswith(".json"))


@pytest.fixture(autouse=True)
def _seconds():
    """A reader that waits for a pipe fails here instead of waiting for ever."""
    with at_most(20):
        yield


def _make(path: Path, kind: str) -> Path:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_refused(tmp_path, name, kind):
    path = _make(tmp_path / name, kind)
    with pytest.raises((PaddleDnlError, OSError)) as caught:
        READERS[name](path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", JSON)
def test_deep_json_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(DEEP)
    with pytest.raises(PaddleDnlError, match="nested too deeply|cannot be read") as caught:
        READERS[name](tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(DEEP), lambda path: _make(path, "pipe")])
def test_notes_of_ours_that_somebody_spoiled_count_as_none(tmp_path, spoil):
    spoil(tmp_path / "note")
    assert selection._all_remembered(tmp_path / "note") == {}
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4), np.uint8))
    cv2.imwrite(str(tmp_path / "l.png"), np.ones((4, 4), np.uint8))
    dataset = SegmentationDataset([(tmp_path / "a.png", tmp_path / "l.png")], [], "train", 2)
    check_dataset(dataset, cache_dir=tmp_path / "cache")
    counts = dataset.statistics.to_json()
    (note,) = (tmp_path / "cache").glob("*.json")
    note.unlink()
    spoil(note)
    dataset.statistics = None
    check_dataset(dataset, cache_dir=tmp_path / "cache")
    assert dataset.statistics.to_json() == counts


@pytest.mark.parametrize("spoil", [
    lambda path: path.write_bytes(b"0" * 64 + b" " + DEEP + b"\n"),
    lambda path: _make(path, "pipe"),
    lambda path: _make(path, "device"),
])  # fmt: skip
def test_a_journal_that_somebody_spoiled_lists_nothing(tmp_path, spoil):
    """A dataset or export of a stranger may bring one; what it would list is not overwritten then."""
    spoil(tmp_path / outputs.JOURNAL)
    (tmp_path / "theirs.txt").write_text("theirs")
    assert not outputs.is_ours(tmp_path / "theirs.txt")


def test_a_marker_that_somebody_spoiled(tmp_path):
    workspace = tmp_path / f"{atomic.TEMPORARY}{'0' * 12}"
    workspace.mkdir()
    (workspace / atomic.MARKER).write_bytes(DEEP)
    atomic.recover(tmp_path)


def test_sizes(tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="larger than"):
        read_bytes(tmp_path / "sparse")
    with pytest.raises(PaddleDnlError, match="sparse, line 1: longer than"):
        read_list(tmp_path / "sparse", tmp_path)
    with pytest.raises(PaddleDnlError, match="sparse: "):
        read_classes(tmp_path / "sparse")


def test_a_file_is_read_as_it_is(tmp_path):
    (tmp_path / "a").write_bytes(b'{"a": [1, 2]}')
    (tmp_path / "link").symlink_to("a")
    with open_file(tmp_path / "link") as file:
        assert file.read() == b'{"a": [1, 2]}'
    assert parse_json(read_bytes(tmp_path / "link")) == {"a": [1, 2]}
