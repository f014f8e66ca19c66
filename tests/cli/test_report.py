# SPDX-License-Identifier: Apache-2.0
"""tools/report.py on a real small run: scores by hand, worst images, times, and what it refuses."""

import re
import shutil
from pathlib import Path

from paddle_dnl.cli.analysis.report import _timings, main, training_times
from paddle_dnl.config import Config
from paddle_dnl.errors import DataError, UsageError
from paddle_dnl.evaluation.curves import read_scalars

import cv2
import numpy as np
import pytest
from tiny_training import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run folder with VisualDL files, and its data."""
    folder = tmp_path_factory.mktemp("report")
    val = f"val_dataset.val_path={folder / 'data' / 'train.txt'}"
    train(
        folder, [val, "iters=6"], save_dir=str(folder / "run"), do_eval=True, use_vdl=True, log_iters=2, save_interval=3
    )
    return folder


@pytest.fixture(scope="module")
def predictions(run):
    """Label pictures with a known number of wrong pixels: 10 * i in image i."""
    folder = run / "predictions"
    folder.mkdir()
    for i in range(8):
        label = cv2.imread(str(run / "data" / f"label_{i}.png"), cv2.IMREAD_UNCHANGED)
        flat = label.reshape(-1)
        flat[: 10 * i] = (flat[: 10 * i] + 1) % 3
        cv2.imwrite(str(folder / f"image_{i}.png"), flat.reshape(label.shape))
    return folder


def _miou(pairs) -> float:
    """By definition, class by class."""
    truth, found = (np.concatenate([pair[k].reshape(-1) for pair in pairs]) for k in (0, 1))
    return float(np.mean([((truth == c) & (found == c)).sum() / ((truth == c) | (found == c)).sum() for c in range(3)]))


def _pair(run, predictions, i):
    return tuple(
        cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        for path in (run / "data" / f"label_{i}.png", predictions / f"image_{i}.png")
    )


def _text(folder: Path) -> str:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "http" not in re.sub(r'src="data:[^"]*"', "", page)  # nothing is fetched
    return page


def test_stored_pictures(run, predictions, tmp_path):
    out = tmp_path / "out"
    arguments = ["--run_dir", run / "run", "--prediction_dir", predictions, "--save_dir", out, "--num_worst", 2]
    assert main([str(a) for a in arguments]) == 0
    page = _text(out)
    pairs = [_pair(run, predictions, i) for i in range(8)]
    assert f"<th>mIoU</th><td>{_miou(pairs):.4f}</td>" in page
    worst = page[page.index("Worst images") : page.index("<h2>Training</h2>")]
    captions = re.findall(r"<figcaption>(\S+): mIoU of this image ([\d.]+)", worst)
    by_score = sorted(range(8), key=lambda i: _miou([pairs[i]]))
    assert captions == [(f"image_{i}.png", f"{_miou([pairs[i]]):.3f}") for i in by_score[:2]]
    best = re.search(r"<figcaption>(\S+): mIoU of this image 1.000", page)
    assert best[1] == "image_0.png"
    assert "seconds per step" in page and "waiting for data" in page and "<th>training steps</th><td>6 in" in page
    assert {path.name for path in out.iterdir()} >= {"training.png", "class_iou.png", "confusion.png", "worst_1.png"}
    row = cv2.imread(str(out / "worst_0.png"))
    assert row.shape == (24, 3 * 24 + 12, 3)
    # Truth and prediction differ where the labels do.
    truth, found = row[:, 30:54], row[:, 60:]
    np.testing.assert_array_equal((truth != found).any(-1), np.not_equal(*pairs[by_score[0]]))


def test_a_run_alone_is_enough(run, tmp_path):
    """Configuration and weights are found in the run's folder; the score is that of its evaluation."""
    shutil.copytree(run / "run", tmp_path / "run")
    assert main(["--run_dir", str(tmp_path / "run"), "--device", "cpu"]) == 0
    from paddle_dnl.evaluation.evaluator import evaluate
    from paddle_dnl.models.build import build_model
    from paddle_dnl.registry import build

    config = Config(str(tmp_path / "run" / "config.yml"))
    model = build_model(config, pretrained=str(tmp_path / "run" / "best_model" / "model.pdparams"))
    wanted = evaluate(model, build(config.val_dataset_cfg, "dataset"), print_detail=False).metrics.miou
    assert f"<th>mIoU</th><td>{wanted:.4f}</td>" in _text(tmp_path / "run")


def test_times_by_hand():
    scalars = {
        "Train/batch_cost": ([10, 20, 25], [1.0, 2.0, 4.0]),
        "Train/reader_cost": ([10, 20, 25], [0.5, 0.0, 1.0]),
    }
    rows = dict(training_times(scalars, batch_size=4))
    assert rows["training steps"].startswith("25 in 50 s")
    assert rows["seconds per step"] == "2.000 (median), 2.000 (mean)"
    assert rows["images per second and process"] == "2.00"
    assert rows["share of the time spent waiting for data"] == "20.0 %"
    # A run that was continued in a new folder: only what its files hold is counted.
    late = {"Train/batch_cost": ([1010, 1020], [1.0, 1.0])}
    assert dict(training_times(late, 1))["training steps"].startswith("1020 in 20 s")
    assert training_times({}, 1) == []


def test_refusals(run, predictions, tmp_path):
    folder = str(run / "run")
    with pytest.raises(UsageError, match="nothing.pdparams: no such weights"):
        main(["--run_dir", folder, "--model_path", "nothing.pdparams"])
    with pytest.raises(UsageError, match="give one of them"):
        main(["--run_dir", folder, "--model_path", "a", "--prediction_dir", "b"])
    with pytest.raises(UsageError, match="config.yml: no such configuration"):
        main(["--run_dir", str(tmp_path)])
    with pytest.raises(UsageError, match="--run_dir nothere: no such folder"):
        main(["--run_dir", "nothere"])
    with pytest.raises(DataError, match="no scalars.csv"):
        main(["--run_dir", str(tmp_path), "--config", str(run / "config.yml")])
    with pytest.raises(UsageError, match="--num_rows"):
        main(["--run_dir", folder, "--num_rows", "0"])
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(predictions / "image_0.png", few)
    with pytest.raises(DataError, match=r"image_1\.png: --prediction_dir .* holds no image_1\.png"):
        main(["--run_dir", folder, "--prediction_dir", str(few), "--save_dir", str(tmp_path)])
    for i in range(8):
        cv2.imwrite(str(few / f"image_{i}.png"), np.zeros((5, 7), np.uint8))
    with pytest.raises(DataError, match=r"its prediction is \(7, 5\) pixels"):
        main(["--run_dir", folder, "--prediction_dir", str(few), "--save_dir", str(tmp_path)])


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1]", '{"train": "long"}', "\xff", '{"train": NaN}', '{"train": -1}', '{"train": %s}' % ("9" * 4000)],
)
def test_timings_that_cannot_be_used(tmp_path, content):
    (tmp_path / "t.json").write_text(content, encoding="latin1")
    with pytest.raises(DataError, match="--timings .*t.json: ") as raised:
        _timings(str(tmp_path / "t.json"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "content", [b"", b"step,tag,value\n", b"step,tag,value\n1,Evaluate/mIoU,0.5\n2,Train/lo", b"\xff\xfe"]
)
def test_a_run_without_a_loss_is_said(tmp_path, content):
    (tmp_path / "scalars.csv").write_bytes(content)
    with pytest.raises(DataError, match="scalars.csv: holds no training loss"):
        read_scalars(tmp_path)
