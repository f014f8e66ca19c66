# SPDX-License-Identifier: Apache-2.0
"""Large pictures in strips: the same classes as with scores of the whole picture, in memory that follows the width."""

import errno
import json
import logging
import os
import resource
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import paddle_dnl  # noqa: F401
from paddle_dnl.data.images import strip_results
from paddle_dnl.data.images.picture_rows import ArrayRows
from paddle_dnl.data.overlay import overlay
from paddle_dnl.errors import DataError, UsageError
from paddle_dnl.evaluation import predict as predict_module
from paddle_dnl.evaluation import strips
from paddle_dnl.evaluation.inference import infer, slide_strips
from paddle_dnl.evaluation.options import InferenceOptions
from paddle_dnl.evaluation.predict import predict
from paddle_dnl.nn.resize import resize

import cv2
import numpy as np
import paddle
import pytest
from PIL import Image

PIXELS = np.random.default_rng(0).integers(0, 256, (61, 90, 3), dtype=np.uint8)


class Placed(paddle.nn.Layer):
    """Logits that depend on the place inside of a window."""

    def __init__(self, classes: int = 5):
        super().__init__()
        paddle.seed(0)
        self.conv = paddle.nn.Conv2D(3, classes, 3, padding=1)

    def forward(self, x):
        return [self.conv(x) + paddle.linspace(0, 1, x.shape[3]).reshape([1, 1, 1, -1])]


@pytest.mark.parametrize(
    ("crop", "stride"), [((16, 12), (9, 7)), ((32, 30), (8, 5)), ((100, 20), (50, 10)), ((100, 200), (50, 50))]
)
def test_rolling_windows_give_the_bits_of_all_windows_at_once(crop, stride, monkeypatch):
    monkeypatch.setattr("paddle_dnl.nn.cpu.window_mean._STRIP", 2000)
    image = paddle.to_tensor(PIXELS.transpose(2, 0, 1)[None].astype("float32") / 255)
    options = InferenceOptions(is_slide=True, crop_size=crop, stride=stride)
    found = list(slide_strips(Placed(), (61, 90), lambda top, bottom: image[:, :, top:bottom], options))
    assert len(found) > 10 or crop == (100, 200)
    np.testing.assert_array_equal(np.concatenate(found, axis=2), infer(Placed(), image, options).numpy())


def test_a_window_finds_the_logits_of_the_one_before_released():
    """Else its blocks are placed around them, and 20 windows of 1024x1024 leave holes of 1.6 GB."""
    before = []

    class Watching(Placed):
        def forward(self, x):
            assert not [one for one in before if one() is not None], "the logits of an earlier window are held"
            found = super().forward(x)
            before.append(weakref.ref(found[0]))
            return found

    image = paddle.to_tensor(PIXELS.transpose(2, 0, 1)[None].astype("float32") / 255)
    options = InferenceOptions(is_slide=True, crop_size=(32, 30), stride=(16, 15))
    infer(Watching(), image, options)
    assert len(before) > 10


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("target", [(30, 40), (200, 333), (61, 50), (777, 90), (1, 1)])
def test_resize_by_strips(target, align_corners, monkeypatch):
    monkeypatch.setattr(strips, "_STRIP", 2000)
    scores = np.random.default_rng(0).normal(size=(5, 61, 90)).astype(np.float32)
    pieces = (scores[:, top : top + 7] for top in range(0, 61, 7))
    found = np.concatenate(list(strips._resized(pieces, (61, 90), target, align_corners)), axis=1)
    whole = resize(paddle.to_tensor(scores[None]), list(target), align_corners).numpy()[0]
    np.testing.assert_allclose(found, whole, atol=2e-5)


NORMALIZE = {"type": "Normalize", "mean": [0.5] * 3, "std": [0.5] * 3}
WINDOWS = {"is_slide": True, "crop_size": [32, 24], "stride": [20, 16]}


def _config(*transforms):
    cfg = {"type": "Dataset", "num_classes": 5, "transforms": list(transforms)}
    return SimpleNamespace(val_dataset_cfg=cfg, model_cfg={"num_classes": 5})


@pytest.mark.parametrize("ending", [".png", ".jpg"])
@pytest.mark.parametrize("settings", [{}, WINDOWS], ids=["whole", "windows"])
@pytest.mark.parametrize(
    "transforms",
    [
        [NORMALIZE],
        [{"type": "Resize", "target_size": [70, 40]}, NORMALIZE],
        [NORMALIZE, {"type": "Padding", "target_size": [100, 80]}],
        [{"type": "ResizeToFit", "frame": [51, 40]}, NORMALIZE],
    ],
    ids=["normalize", "resize", "padding", "fit"],
)
def test_the_program_writes_the_same_files(transforms, settings, ending, tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / f"a{ending}"), PIXELS)
    found = {}
    for name, limit in (("whole", 10**9), ("strips", 1)):
        monkeypatch.setattr(predict_module, "STRIPS_FROM", limit)
        monkeypatch.setattr(strips, "_STRIP", 3000)
        folder = tmp_path / name
        assert predict(Placed(), _config(*transforms), str(tmp_path / f"a{ending}"), str(folder), **settings) == 1
        label = Image.open(folder / "pseudo_color_prediction/a.png")
        drawn = cv2.imread(str(folder / f"added_prediction/a{ending}"))
        found[name] = np.asarray(label), label.getpalette(), drawn
    for whole, strip in zip(found["whole"], found["strips"], strict=True):
        np.testing.assert_array_equal(whole, strip)


def test_more_classes_than_a_palette_has(tmp_path):
    colors = [(i % 256, i // 256, 7) for i in range(300)]
    labels = np.random.default_rng(0).integers(0, 300, (20, 30)).astype(np.uint16)
    rows = ArrayRows(np.zeros((20, 30, 3), np.uint8))
    with strip_results.StripResults((20, 30), colors, tmp_path / "a.png", tmp_path / "b.png") as written:
        for top in (0, 7, 14):
            written.write(rows, labels[top : top + 7])
        written.commit()
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED), labels)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "b.png")), overlay(rows.read(0, 20), labels, colors))
    with pytest.raises(DataError, match="c.png: more than 256 classes need a colour each"):
        with strip_results.StripResults((20, 30), colors[:9], tmp_path / "c.png") as written:
            written.write(rows, labels)
    assert sorted(path.suffix for path in tmp_path.iterdir() if not path.name.startswith(".paddle")) == [".png", ".png"]


@pytest.mark.parametrize("part", ["PngStrips", "PngStrips._chunk"])
@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_a_disk_that_is_full_at_the_first_byte_leaves_nothing(tmp_path, monkeypatch, part, ending):
    """When a file is begun, and when its head is written."""

    def no_space(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"{strip_results.__name__}.{part}", no_space)
    with pytest.raises(OSError, match="No space"):
        strip_results.StripResults((20, 30), [(0, 0, 0)], tmp_path / "a.png", tmp_path / f"b{ending}")
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_said_without_naming_what_was_given(tmp_path, monkeypatch):
    class Greedy(Placed):
        def forward(self, x):
            raise MemoryError

    cv2.imwrite(str(tmp_path / "a.png"), PIXELS)
    for limit in (1, 10**9):
        monkeypatch.setattr(predict_module, "STRIPS_FROM", limit)
        for settings, advice in (({}, "use --is_slide --crop_size 1024 512"), (WINDOWS, "use a smaller --crop_size")):
            with pytest.raises(UsageError, match=f"a.png: out of memory; {advice}"):
                predict(Greedy(), _config(NORMALIZE), str(tmp_path / "a.png"), str(tmp_path / "o"), **settings)
        assert not list(tmp_path.glob("o/*/*"))


# Runs predict.py on a white picture and prints how many megabytes it took beyond a small picture.
CHILD = """
import json, resource, sys
import paddle_dnl
from paddle_dnl.evaluation.predict import predict
from test_strips import Placed, _config, NORMALIZE
import cv2, numpy as np
folder, height, width, classes = sys.argv[1], *map(int, sys.argv[2:])
peaks = []
for size in ((100, 100), (height, width)):
    path = f"{folder}/{size[0]}.png"
    cv2.imwrite(path, np.full((*size, 3), 200, np.uint8))
    predict(Placed(classes), _config(NORMALIZE), path, folder, is_slide=True, crop_size=[256, 256], stride=[256, 256])
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
print(json.dumps(peaks))
"""


def peak_megabytes(folder: Path, height: int, width: int, classes: int) -> int:
    """Peak of a child process that predicts a picture of this size, beyond that of a picture of 100x100."""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here}:{here.parent.parent}"}
    command = [sys.executable, "-c", CHILD, str(folder), str(height), str(width), str(classes)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    small, large = json.loads(done.stdout.splitlines()[-1])
    return large - small


def test_memory_holds_no_scores_of_the_whole_picture(tmp_path):
    # 8 million pixels and 40 classes: 1.3 GB of scores.
    assert peak_megabytes(tmp_path, 8200, 1000, 40) < 450


def test_the_estimate_is_said_before(tmp_path, monkeypatch, caplog):
    from paddle_dnl.profile.memory_plan import announce_picture

    monkeypatch.setattr("paddle_dnl.profile.memory_plan.free_bytes", lambda: 2 * 10**9)
    with caplog.at_level(logging.INFO, "paddle_dnl"):
        windows = InferenceOptions(is_slide=True, crop_size=(512, 256), stride=(512, 256))
        announce_picture(Placed(19), (12000, 12000), (12000, 12000), 3, windows)
        assert "for 512x256 pixels at once" in caplog.text and "more than what is free" not in caplog.text
        announce_picture(Placed(19), (12000, 12000), (12000, 12000), 3, InferenceOptions())
    assert "for 12000x12000 pixels at once" in caplog.text and "use --is_slide --crop_size 1024 512" in caplog.text


@pytest.mark.parametrize("bytes_left, classes", [(0, 19), (100, 19), (9000, 19), (100, 1)])
@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, bytes_left, classes, ending):
    """In the pixels, and when the file is closed: one class is so short that a buffer holds it until then."""
    noise = np.random.default_rng(0).integers(0, classes, (300, 200)).astype(np.uint8)
    rows = ArrayRows(np.stack([noise * 13, noise * 5, noise], axis=-1))
    labels, overlays = tmp_path / "a.png", tmp_path / f"b{ending}"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            with strip_results.StripResults((300, 200), [(i, 7, i) for i in range(19)], labels, overlays) as written:
                for top in range(0, 300, 100):
                    written.write(rows, noise[top : top + 100])
                written.commit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename in (str(labels), str(overlays)) and caught.value.errno == errno.EFBIG
    assert not list(tmp_path.iterdir())
