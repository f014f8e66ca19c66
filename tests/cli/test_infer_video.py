# SPDX-License-Identifier: Apache-2.0
"""infer.py on videos and cameras: frames, order, rates, ends that come too early."""

import os
from pathlib import Path

from paddle_dnl.cli.infer import main, parse_args
from paddle_dnl.data.images import video_files
from paddle_dnl.data.images.video_files import Video, camera_index, is_video
from paddle_dnl.data.images.video_writer import VideoWriter
from paddle_dnl.data.overlay import overlay
from paddle_dnl.deployment.runtime.backend_process import BackendProcess
from paddle_dnl.errors import DataError, UsageError
from paddle_dnl.files.outputs import JOURNAL

import cv2
import numpy as np
import pytest
from PIL import Image
from tiny_export import CLASSES, blocks

FRAMES = 12


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """An MJPG film whose frame k is `blocks` of seed k, and the classes."""
    path = tmp_path_factory.mktemp("film") / "street.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (128, 64))
    labels = []
    for seed in range(FRAMES):
        image, label = blocks(2, 4, 32, seed)
        writer.write(image)
        labels.append(label)
    writer.release()
    return path, labels


@pytest.fixture(autouse=True)
def _backend_in_this_process(monkeypatch, request):
    """Starting a process takes seconds; one test does."""
    if "own_process" not in request.node.name:
        from paddle_dnl.cli import infer

        real = infer._make_predictor
        monkeypatch.setattr(infer, "_make_predictor", lambda args, is_long: real(args, False))


def _infer(exported, path, out, *more):
    return main(["--config", str(exported), "--image_path", str(path), "--save_dir", str(out), *more])


def _frames(path):
    video = Video(str(path))
    found = list(video.frames())
    video.close()
    return found, video.rate


def _agreement(label, found):
    return (label == found).mean()


def test_numbered_frames(tmp_path, exported, film, capsys):
    path, labels = film
    assert _infer(exported, path, tmp_path, "--video_output", "frames", "--batch_size", "2") == 0
    names = [f"{i:06d}.png" for i in range(FRAMES)]
    assert sorted(p.name for p in (tmp_path / "street").iterdir()) == names
    assert sorted(p.name for p in (tmp_path / "added_prediction" / "street").iterdir()) == names
    for name, label in zip(names, labels, strict=True):
        with Image.open(tmp_path / "street" / name) as picture:
            # JPEG moves colours near the edges of the squares.
            assert _agreement(label, np.array(picture)) > 0.98
    text = capsys.readouterr().out
    assert f"{path} frame 3 -> {tmp_path / 'street' / '000003.png'}" in text and "12 images in" in text


def test_overlay_video_with_own_process(tmp_path, exported, film, monkeypatch, capsys):
    path, labels = film
    started = []
    real = BackendProcess.__init__
    monkeypatch.setattr(
        BackendProcess, "__init__", lambda self, *a, **k: (started.append(self), real(self, *a, **k))[1]
    )
    assert _infer(exported, path, tmp_path, "--benchmark") == 0
    assert len(started) == 1 and not started[0].alive, "the backend ran in a process, which is gone"
    files = [p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file() and p.name != JOURNAL]
    assert files == [Path("added_prediction/street.mp4")]
    found, rate = _frames(tmp_path / "added_prediction" / "street.mp4")
    assert len(found) == FRAMES and rate == pytest.approx(10)
    inputs, _ = _frames(path)
    for frame, source, label in zip(found, inputs, labels, strict=True):
        difference = frame.astype(int) - overlay(source, label, CLASSES.colors)
        assert np.abs(difference).mean() < 6
    assert "of the backend alone; 12 images in" in capsys.readouterr().out


def test_max_frames(tmp_path, exported, film):
    _infer(exported, film[0], tmp_path, "--max_frames", "5")
    assert len(_frames(tmp_path / "added_prediction" / "street.mp4")[0]) == 5
    with pytest.raises(UsageError, match="--max_frames must be at least 1"):
        parse_args(["--config", "a", "--image_path", "b", "--max_frames", "0"])


class _Camera:
    """Stands in for a camera of the machine: a fixed number of pictures, then none."""

    def __init__(self, number, count=6, rate=0.0):
        self.number, self.left, self.rate = number, count, rate

    def isOpened(self):  # noqa: N802  OpenCV's name
        return self.number == 7

    def get(self, key):
        return self.rate if key == cv2.CAP_PROP_FPS else 0

    def read(self):
        if self.left == 0:
            return False, None
        self.left -= 1
        return True, blocks(2, 4, 32, self.left)[0]

    def release(self):
        pass


def test_camera(tmp_path, exported, monkeypatch):
    monkeypatch.chdir(tmp_path)
    real = cv2.VideoCapture
    monkeypatch.setattr(
        video_files.cv2,
        "VideoCapture",
        lambda source, *more: _Camera(source) if isinstance(source, int) else real(source, *more),
    )
    assert _infer(exported, "7", tmp_path / "a", "--max_frames", "4", "--video_output", "frames") == 0
    for number in range(4):
        with Image.open(tmp_path / "a" / "camera_7" / f"{number:06d}.png") as picture:
            np.testing.assert_array_equal(np.array(picture), blocks(2, 4, 32, 5 - number)[1])
    with pytest.raises(DataError, match="camera 7: gave no more pictures after 6"):
        _infer(exported, "7", tmp_path / "b")
    kept, rate = _frames(tmp_path / "b" / "added_prediction" / "camera_7.mp4")
    assert len(kept) == 6 and rate == 25, "what was there is kept"
    with pytest.raises(DataError, match="camera 3: cannot be opened"):
        _infer(exported, "3", tmp_path / "c")


def test_ctrl_c_ends_a_camera_well_and_a_file_as_interrupted(tmp_path, exported, film, monkeypatch):
    from paddle_dnl.deployment.runtime.predictor import Predictor

    real, count = Predictor.run_each, []

    def interrupted(self, tensors, **more):
        count.append(1)
        if len(count) == 4:
            raise KeyboardInterrupt
        return real(self, tensors, **more)

    monkeypatch.setattr(Predictor, "run_each", interrupted)
    real_capture = cv2.VideoCapture
    monkeypatch.setattr(
        video_files.cv2,
        "VideoCapture",
        lambda source, *more: _Camera(source, 1000) if isinstance(source, int) else real_capture(source, *more),
    )
    monkeypatch.chdir(tmp_path)
    assert _infer(exported, "7", tmp_path) == 0
    assert 1 <= len(_frames(tmp_path / "added_prediction" / "camera_7.mp4")[0]) <= 3
    count.clear()
    with pytest.raises(KeyboardInterrupt):
        _infer(exported, film[0], tmp_path)


def test_videos_that_are_none(tmp_path, exported, film):
    with pytest.raises(DataError, match="nowhere.mp4: no such video"):
        _infer(exported, tmp_path / "nowhere.mp4", tmp_path)
    for content, text in ((b"", "empty"), (b"no film at all" * 99, "not a readable video")):
        (tmp_path / "bad.mp4").write_bytes(content)
        with pytest.raises(DataError, match=f"bad.mp4.*{text}"):
            _infer(exported, tmp_path / "bad.mp4", tmp_path / "out")
    whole = film[0].read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cut.avi"):
        _infer(exported, tmp_path / "cut.avi", tmp_path / "out")


def test_what_counts_as_video(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [camera_index(text) for text in ("0", "12", "-1", "1.png", "²", "")] == [0, 12, None, None, None, None]
    assert [is_video(text) for text in ("0", "a.MP4", "a.png", "folder", "*.mp4")] == [True, True, False, False, False]
    (tmp_path / "0").mkdir()
    assert camera_index("0") is None, "a folder of that name is meant"


def test_video_writer(tmp_path, monkeypatch):
    writer = VideoWriter(tmp_path / "new" / "odd.mp4", 7.5)
    frames = [np.full((33, 47, 3), 20 * i, np.uint8) for i in range(8)]
    for frame in frames:
        writer.write(frame)
    assert not (tmp_path / "new" / "odd.mp4").exists(), "its name comes when it is whole"
    with pytest.raises(DataError, match="those before are"):
        writer.write(np.zeros((8, 8, 3), np.uint8))
    writer.close()
    found, rate = _frames(tmp_path / "new" / "odd.mp4")
    assert len(found) == 8 and rate == pytest.approx(7.5)
    assert all(abs(int(a.mean()) - int(b.mean())) < 8 for a, b in zip(found, frames, strict=True))
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"odd.mp4", JOURNAL}
    full = VideoWriter(tmp_path / "full.mp4", 25)
    full.write(frames[0])
    full._count = 99
    with pytest.raises(DataError, match="only 1 of 99 frames"):
        full.close()
    assert not list(tmp_path.glob("*full*")) and not list(tmp_path.glob(".*"))
    VideoWriter(tmp_path / "none.mp4", 25).close()
    assert not (tmp_path / "none.mp4").exists()


@pytest.mark.parametrize("name", ["playlist.mp4", "concat.mp4", "dash.mkv", "picture.avi"])
def test_files_that_would_have_others_read(tmp_path, film, name):
    """A playlist or concat list under a video's name leads to another film, which is there and whole."""
    content = {
        "playlist.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{film[0]}\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile '{film[0]}'\n",
        "dash.mkv": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
        "picture.avi": "P5 4 4 255 0123456789abcdef",
    }[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=f"{name}: is not a readable video"):
        Video(str(tmp_path / name))
    # Also where the first bytes pass: FFmpeg is told the containers and the one protocol.
    opened = video_files._open_file(str(tmp_path / name))
    assert not opened.isOpened() and video_files._FFMPEG_VARIABLE not in os.environ


@pytest.mark.parametrize("stride", [2, 5, 30])
def test_stride_keeps_the_playing_time(tmp_path, exported, film, stride):
    path, _ = film
    assert _infer(exported, path, tmp_path, "--stride", str(stride)) == 0
    found, rate = _frames(tmp_path / "added_prediction" / "street.mp4")
    assert len(found) == -(-FRAMES // stride) and rate == pytest.approx(10 / stride, abs=1e-3)  # as MP4 rounds
    assert _infer(exported, path, tmp_path / "f", "--stride", str(stride), "--video_output", "frames") == 0
    names = sorted(p.name for p in (tmp_path / "f" / "street").iterdir())
    assert names == [f"{i:06d}.png" for i in range(0, FRAMES, stride)]
    video = Video(str(path))
    every = list(_frames(path)[0])[::stride]
    for one, wanted in zip(video.frames(stride=stride), every, strict=True):
        np.testing.assert_array_equal(one, wanted)
    limited = list(Video(str(path)).frames(2, stride))
    assert len(limited) == min(2, len(every))


def test_flags_of_videos_are_refused_for_pictures(tmp_path, exported):
    cv2.imwrite(str(tmp_path / "a.png"), blocks(2, 4, 32)[0])
    for flags in (["--stride", "2"], ["--preview", "0"]):
        with pytest.raises(UsageError, match=f"{flags[0]}: is for videos"):
            _infer(exported, tmp_path / "a.png", tmp_path / "out", *flags)
    with pytest.raises(UsageError, match="--stride must be at least 1"):
        _infer(exported, tmp_path / "a.png", tmp_path / "out", "--stride", "0")
