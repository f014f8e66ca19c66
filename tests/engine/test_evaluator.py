"""Evaluation: the same metrics whatever the batch, workers or number of ranks; images counted once."""

import logging
import subprocess
import sys
from pathlib import Path

from paddle_dnl.data.datasets import Dataset
from paddle_dnl.engine import distributed
from paddle_dnl.engine.evaluator import evaluate
from paddle_dnl.engine.metrics import Metrics, confusion_matrix
from paddle_dnl.errors import DataError

import cv2
import numpy as np
import paddle
import pytest


class Threshold(paddle.nn.Layer):
    """Class 0, 1 or 2 by the brightness of the pixel."""

    def forward(self, x):
        grey = x.mean(1, keepdim=True)
        return [paddle.concat([-((grey - c) ** 2) for c in (0.2, 0.5, 0.8)], axis=1)]


def _write(folder: Path, count=5):
    rng = np.random.default_rng(3)
    lines = []
    for i in range(count):
        image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        label = rng.integers(0, 3, (20, 30), dtype=np.uint8)
        label[:2] = 255
        cv2.imwrite(str(folder / f"i{i}.png"), image)
        cv2.imwrite(str(folder / f"l{i}.png"), label)
        lines.append(f"i{i}.png l{i}.png")
    (folder / "val.txt").write_text("\n".join(lines))


class _Scale:
    def __call__(self, data):
        data["img"] = data["img"] / 255
        return data


def _dataset(folder: Path):
    return Dataset("val", str(folder), [_Scale()], 3, val_path=str(folder / "val.txt"))


def _expected(folder: Path):
    total = np.zeros((3, 3), np.int64)
    for i in range(5):
        grey = cv2.imread(str(folder / f"i{i}.png")).astype(np.float32).mean(-1) / 255
        label = cv2.imread(str(folder / f"l{i}.png"), 0)
        pred = np.argmin([(grey - c) ** 2 for c in (0.2, 0.5, 0.8)], axis=0)
        total += confusion_matrix(pred, label, 3)
    return total


@pytest.mark.parametrize("settings", [{}, {"batch_size": 2}, {"num_workers": 2}, {"batch_size": 5, "num_workers": 1}])
def test_confusion_by_hand(tmp_path, settings):
    _write(tmp_path)
    result = evaluate(Threshold(), _dataset(tmp_path), **settings)
    np.testing.assert_array_equal(result.confusion, _expected(tmp_path))
    assert result.num_images == 5


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_ranks_share_the_images(tmp_path, monkeypatch, ranks):
    """Each rank's own counts add up to the whole, also with more ranks than images."""
    _write(tmp_path)
    monkeypatch.setattr(distributed, "world_size", lambda: ranks)
    monkeypatch.setattr(Metrics, "from_confusion", classmethod(lambda cls, c: None))
    parts = []
    for rank in range(ranks):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "all_reduce_sum", lambda array: parts.append(array) or array)
        evaluate(Threshold(), _dataset(tmp_path), print_detail=False)
    assert len(parts) == ranks
    np.testing.assert_array_equal(sum(parts), _expected(tmp_path))


def test_two_real_ranks(tmp_path):
    _write(tmp_path)
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[2])!r}]\n"
        "import paddle_dnl\nfrom pathlib import Path\nfrom paddle_dnl.engine import distributed\n"
        "import test_evaluator as t\ndistributed.initialise()\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "result = t.evaluate(t.Threshold(), t._dataset(folder), print_detail=False)\n"
        "assert (result.confusion == t._expected(folder)).all() and result.num_images == 5\n"
        "(folder / f'done_{distributed.rank()}').touch()\n"
    )
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--backend", "gloo"]
    done = subprocess.run(
        [*command, "--log_dir", str(tmp_path / "log"), str(program)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert (tmp_path / "done_0").exists() and (tmp_path / "done_1").exists()


def test_log_lines_are_those_that_scripts_read(tmp_path, caplog, monkeypatch):
    _write(tmp_path)
    monkeypatch.setattr(logging.getLogger("paddle_dnl"), "propagate", True)
    with caplog.at_level(logging.INFO, "paddle_dnl"):
        result = evaluate(Threshold(), _dataset(tmp_path), auc_roc=True)
    m = result.metrics
    assert (
        f"[EVAL] #Images: 5 mIoU: {m.miou:.4f} Acc: {m.acc:.4f} Kappa: {m.kappa:.4f} Dice: {m.dice:.4f} "
        f"Auc_roc: {result.auc_roc:.4f}" in caplog.text
    )
    for title in ("Class IoU", "Class Precision", "Class Recall"):
        assert f"[EVAL] {title}: \n[" in caplog.text


def test_mode_is_restored_and_errors_name_things(tmp_path):
    _write(tmp_path)
    model = Threshold()
    model.train()
    evaluate(model, _dataset(tmp_path), print_detail=False)
    assert model.training
    cv2.imwrite(str(tmp_path / "i0.png"), np.zeros((22, 30, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "l0.png"), np.zeros((22, 30), np.uint8))
    with pytest.raises(DataError, match="batch_size 5"):
        evaluate(model, _dataset(tmp_path), batch_size=5, print_detail=False)
    assert model.training
