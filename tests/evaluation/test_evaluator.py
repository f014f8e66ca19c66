# SPDX-License-Identifier: Apache-2.0
"""Evaluation: the same metrics whatever the batch, workers or number of ranks; images counted once."""

import logging
import subprocess
import sys
from pathlib import Path

from paddle_dnl.data.datasets import Dataset
from paddle_dnl.data.transforms import ResizeToFit
from paddle_dnl.distributed import collectives
from paddle_dnl.errors import DataError, UsageError
from paddle_dnl.evaluation import evaluator
from paddle_dnl.evaluation.batches import at_scales
from paddle_dnl.evaluation.evaluator import evaluate
from paddle_dnl.evaluation.inference import infer_augmented
from paddle_dnl.evaluation.metrics import Metrics, confusion_matrix
from paddle_dnl.evaluation.options import InferenceOptions

import cv2
import numpy as np
import paddle
import pytest
from paddleseg.core.val import evaluate as paddleseg_evaluate
from paddleseg.transforms import Normalize, Padding, Resize
from paddleseg.utils import metrics as paddleseg_metrics
from sklearn.metrics import roc_auc_score


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


def _dataset(folder: Path, *transforms, num_classes=3):
    return Dataset("val", str(folder), [_Scale(), *transforms], num_classes, val_path=str(folder / "val.txt"))


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


def test_progress_counts_images(tmp_path, monkeypatch):
    """Those of all ranks, as `test_real_ranks` sees of the counter."""
    _write(tmp_path)
    said = []

    def progress(items, description, total, reached):
        for item in items:
            said.append((reached(), total))
            yield item

    monkeypatch.setattr(evaluator, "progress", progress)
    evaluate(Threshold(), _dataset(tmp_path), batch_size=2)
    assert said == [(0, 5), (2, 5), (4, 5)]


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_ranks_share_the_images(tmp_path, monkeypatch, ranks):
    """Each rank's own counts add up to the whole, also with more ranks than images."""
    _write(tmp_path)
    monkeypatch.setattr(collectives, "world_size", lambda: ranks)
    monkeypatch.setattr(collectives, "barrier", lambda what: None)
    monkeypatch.setattr(Metrics, "from_areas", classmethod(lambda cls, areas: None))
    parts = []
    for rank in range(ranks):
        monkeypatch.setattr(collectives, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(collectives, "all_reduce_sums", lambda arrays: parts.append(arrays[1]) or arrays)
        evaluate(Threshold(), _dataset(tmp_path), print_detail=False)
    assert len(parts) == ranks
    np.testing.assert_array_equal(sum(parts), _expected(tmp_path))


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(7, marks=pytest.mark.slow)])
def test_real_ranks(tmp_path, ranks):
    """Every process finds the counts of a single one, also one that has no image, with one exchange in all."""
    _write(tmp_path)
    program = tmp_path / "program.py"
    here = Path(__file__).resolve().parent
    program.write_text(
        f"import sys; sys.path[:0] = {[str(here), str(here.parent / 'helpers'), str(here.parents[1])]}\n"
        "import paddle_dnl\nfrom pathlib import Path\nfrom paddle_dnl.distributed import collectives\n"
        "import test_evaluator as t\nfrom counted_training import EXCHANGES, count\ncollectives.initialise()\n"
        f"assert collectives.world_size() == {ranks}\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "counted = count(setattr)\n"
        "result = t.evaluate(t.Threshold(), t._dataset(folder), auc_roc=True, stop=lambda: False)\n"
        "assert [name for name in counted if name in EXCHANGES] == ['all_reduce'], counted\n"
        "assert (result.confusion == t._expected(folder)).all() and result.num_images == 5\n"
        "seen = collectives.SharedCounter()\nseen._SECONDS = 0\n"
        "seen.add(collectives.rank() + 1)\nseen.total()\ncollectives.barrier('the test')\n"
        f"assert seen.total() == {ranks * (ranks + 1) // 2}\n"
        "(folder / f'auc_{collectives.rank()}').write_text(repr(result.auc_roc))\n"
    )
    command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", str(ranks), "--backend", "gloo"]
    done = subprocess.run(
        [*command, "--log_dir", str(tmp_path / "log"), str(program)], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr + done.stdout
    alone = evaluate(Threshold(), _dataset(tmp_path), auc_roc=True, print_detail=False).auc_roc
    assert [(tmp_path / f"auc_{rank}").read_text() for rank in range(ranks)] == [repr(alone)] * ranks


class Net(paddle.nn.Layer):
    """A convolution; not the same when flipped, and no class is favoured by brightness."""

    def __init__(self):
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 3, 3, padding=1)
        weight = np.random.default_rng(7).normal(size=(3, 3, 3, 3))
        self.conv.weight.set_value((weight - weight.mean((1, 2, 3), keepdims=True)).astype("float32"))

    def forward(self, x):
        return [self.conv(x)]


class _Stacking:
    """PaddlePaddle for paddleseg's metrics: they concatenate 0-d tensors, which only old releases do."""

    def __getattr__(self, name):
        return paddle.stack if name == "concat" else getattr(paddle, name)


SLIDE = {"is_slide": True, "crop_size": [16, 12], "stride": [9, 7]}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("settings", [
    {}, SLIDE, {"aug_eval": True, "scales": [0.75, 1.0, 1.5], "flip_horizontal": True, "flip_vertical": True},
    {"aug_eval": True, "scales": 1.25, **SLIDE},
], ids=["whole", "slide", "ms_flip", "scale_slide"])  # fmt: skip
def test_against_live_paddleseg(tmp_path, monkeypatch, settings, workers):
    """All scores of paddleseg's evaluate, with a resize and a padding to undo."""
    _write(tmp_path)
    monkeypatch.setattr(paddleseg_metrics, "paddle", _Stacking())
    dataset = _dataset(tmp_path, Normalize(), Resize(target_size=[37, 26]), Padding(target_size=[40, 30]))
    model = Net()
    miou, acc, class_iou, precision, kappa = paddleseg_evaluate(model, dataset, print_detail=False, **settings)
    ours = evaluate(model, dataset, print_detail=False, num_workers=workers, batch_size=1 + workers, **settings)
    assert ours.confusion.sum() == 5 * 18 * 30 and (ours.confusion.sum(0) > 0).all()
    # A pixel or two may lie between classes within float32.
    np.testing.assert_allclose([ours.metrics.miou, ours.metrics.acc, ours.metrics.kappa], [miou, acc, kappa], atol=1e-3)
    np.testing.assert_allclose(ours.metrics.class_iou, class_iou, atol=1e-3)
    np.testing.assert_allclose(ours.metrics.class_precision, precision, atol=1e-3)


def _softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def _enlarged(logits, size):
    return np.stack([cv2.resize(k, size, interpolation=cv2.INTER_LINEAR) for k in logits[0]])[None]


@pytest.mark.parametrize("workers", [0, 1])
def test_published_multi_scale_rule(tmp_path, workers):
    """Each scale is made from the picture itself, in the frame cut to whole pixels; softmax at its size is averaged."""
    _write(tmp_path)
    dataset = _dataset(tmp_path, ResizeToFit([33, 23]))
    net = Net()
    wanted = np.zeros((3, 3), np.int64)
    for i in range(5):
        picture = cv2.imread(str(tmp_path / f"i{i}.png"))[..., ::-1].astype(np.float32) / 255
        passes = []
        # 30 x 20 fits the frame 16 x 11 as 16 x 11 (10.67), and 49 x 34 as 49 x 33.
        for size in ((16, 11), (49, 33)):
            x = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1)[None]
            passes.append(_softmax(_enlarged(net(paddle.to_tensor(x))[0].numpy(), (30, 20))))
            flipped = net(paddle.to_tensor(np.ascontiguousarray(x[..., ::-1])))[0].numpy()[..., ::-1]
            passes.append(_softmax(_enlarged(flipped, (30, 20))))
        pred = np.mean(passes, 0)[0].argmax(0)
        wanted += confusion_matrix(pred, cv2.imread(str(tmp_path / f"l{i}.png"), 0), 3)
    settings = {"aug_eval": True, "scales": [0.5, 1.5], "flip_horizontal": True, "print_detail": False}
    result = evaluate(net, dataset, average="softmax", num_workers=workers, **settings)
    assert np.abs(result.confusion - wanted).sum() <= 4
    other = evaluate(net, dataset, average="logits", **settings)
    assert np.abs(other.confusion - wanted).sum() > 50


def test_official_rule_works_on_the_networks_input(tmp_path):
    """The DNL authors resize what the transforms gave, also where a frame could be fitted again; see test_inference.py."""
    _write(tmp_path)
    dataset = _dataset(tmp_path, ResizeToFit([33, 23]))
    net, wanted = Net(), np.zeros((3, 3), np.int64)
    settings = {"scales": [0.5, 1.5], "flip_horizontal": True, "average": "official"}
    for i in range(5):
        sample = dataset[i]
        scores = infer_augmented(
            net, paddle.to_tensor(sample["img"][None]), sample["trans_info"], InferenceOptions(**settings)
        )
        assert scores.shape == [1, 3, 20, 30]
        wanted += confusion_matrix(scores.numpy()[0].argmax(0), np.asarray(sample["label"]).reshape(20, 30), 3)
    found = evaluate(net, dataset, aug_eval=True, print_detail=False, **settings)
    np.testing.assert_array_equal(found.confusion, wanted)


def test_published_sizes(tmp_path):
    """The table of DGMN2's passes over 2048 x 1024, and ADE20K's frame."""
    cv2.imwrite(str(tmp_path / "i0.png"), np.zeros((1024, 2048, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "l0.png"), np.zeros((1024, 2048), np.uint8))
    (tmp_path / "val.txt").write_text("i0.png l0.png")

    def options(scales, average="softmax"):
        return InferenceOptions(aug_eval=True, scales=scales, average=average)

    ratios = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    dataset = _dataset(tmp_path, ResizeToFit([2049, 1025]))
    sizes = [scaled[0]["img"].shape[1:] for scaled in at_scales(dataset, options(ratios))]
    assert sizes == [(512, 1024), (768, 1536), (1025, 2049), (1281, 2561), (1537, 3073), (1793, 3585)]
    assert dataset[0]["img"].shape[1:] == (1025, 2049)
    with pytest.raises(UsageError, match="scale 0.0001"):
        at_scales(dataset, options([0.0001]))
    assert at_scales(_dataset(tmp_path, Resize(target_size=[20, 10])), options(ratios)) == []
    assert at_scales(dataset, options(ratios, "official")) == at_scales(dataset, options([1.0])) == []


def test_log_lines_are_those_that_scripts_read(tmp_path, caplog):
    _write(tmp_path)
    with caplog.at_level(logging.INFO, "paddle_dnl"):
        result = evaluate(Threshold(), _dataset(tmp_path), auc_roc=True)
    m = result.metrics
    assert "Start evaluating (total_samples: 5, total_iters: 5)..." in caplog.text
    assert (
        f"[EVAL] #Images: 5 mIoU: {m.miou:.4f} Acc: {m.acc:.4f} Kappa: {m.kappa:.4f} Dice: {m.dice:.4f} "
        f"Auc_roc: {result.auc_roc:.4f}" in caplog.text
    )
    for title in ("Class IoU", "Class Precision", "Class Recall"):
        assert f"[EVAL] {title}: \n[" in caplog.text
    assert "left out" not in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "paddle_dnl"):
        evaluate(Threshold(), _dataset(tmp_path, num_classes=5))
    iou = " ".join(f"{value:.4f}".rstrip("0") for value in m.class_iou)
    assert f"[EVAL] Class IoU: \n[{iou}" in " ".join(caplog.text.replace("  ", " ").split(" "))
    assert "[EVAL] 2 classes occur neither in labels nor in predictions" in caplog.text
    assert "means: 3, 4" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "paddle_dnl"):
        evaluate(Threshold(), _dataset(tmp_path), print_detail=False)
    assert not caplog.text


@pytest.mark.parametrize("settings", [{}, {"aug_eval": True}, {"aug_eval": True, "scales": 1, "average": "softmax"}])
def test_roc_area_against_sklearn(tmp_path, settings):
    """One against the rest, of softmax scores, over all pixels that count."""
    _write(tmp_path)
    grey = np.concatenate([cv2.imread(str(tmp_path / f"i{i}.png")).mean(-1)[2:].ravel() / 255 for i in range(5)])
    label = np.concatenate([cv2.imread(str(tmp_path / f"l{i}.png"), 0)[2:].ravel() for i in range(5)])
    scores = _softmax(np.stack([-((grey - c) ** 2) for c in (0.2, 0.5, 0.8)], axis=1))
    found = evaluate(Threshold(), _dataset(tmp_path), auc_roc=True, print_detail=False, **settings).auc_roc
    # Many pixels have nearly the same brightness: which of them tie differs between float32 and float64.
    np.testing.assert_allclose(found, roc_auc_score(label, scores, multi_class="ovr"), atol=5e-4)


def test_mode_is_restored_and_errors_name_things(tmp_path):
    _write(tmp_path)
    model = Threshold()
    model.frozen = paddle.nn.BatchNorm2D(3)
    model.train()
    model.frozen.eval()
    evaluate(model, _dataset(tmp_path), print_detail=False)
    assert model.training and not model.frozen.training
    with pytest.raises(DataError, match="prediction holds 0 to 2"):
        evaluate(model, _dataset(tmp_path, num_classes=2), print_detail=False)
    cv2.imwrite(str(tmp_path / "i0.png"), np.zeros((22, 30, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "l0.png"), np.zeros((22, 30), np.uint8))
    with pytest.raises(DataError, match="batch_size 5"):
        evaluate(model, _dataset(tmp_path), batch_size=5, print_detail=False)
    assert model.training
