# SPDX-License-Identifier: Apache-2.0
"""Resuming continues the run: 5 + 5 steps are 10 steps bit for bit, whatever is switched on, and changes are said."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

from paddle_dnl.errors import CheckpointError
from paddle_dnl.log import logger
from paddle_dnl.weights.safe_pickle import read_pickle

import numpy as np
import paddle
import pytest
import tiny_training
from faulty_training import pretend_gpu
from launching import Started
from recording import MATRIX, Case, check_case, make_config, record, run_part

SAMPLE = [
    Case("Momentum", True, True, 0),
    Case("Adam", False, True, 2),
    Case("AdamW", True, False, 0),
]


@pytest.fixture
def warnings():
    """Warnings of the package's logger."""
    found = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda entry: found.append(entry.getMessage())
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


def _one_process(tmp_path, monkeypatch, case):
    if case.amp:
        pretend_gpu(monkeypatch.setattr)
    run_part("first", case, tmp_path)
    paddle.nn.Conv2D(3, 3, 3)  # other layers shift the generated parameter names
    paddle.nn.Linear(2, 2)
    run_part("second", case, tmp_path)
    check_case(case, tmp_path, ranks=1)


@pytest.mark.parametrize("case", SAMPLE, ids=str)
def test_five_and_five_are_ten_to_the_last_bit(tmp_path, monkeypatch, case):
    _one_process(tmp_path, monkeypatch, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in MATRIX if case not in SAMPLE], ids=str)
def test_the_matrix_in_one_process(tmp_path, monkeypatch, case):
    _one_process(tmp_path, monkeypatch, case)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_the_matrix_on_two_ranks(tmp_path, workers):
    cases = [case for case in MATRIX if case.workers == workers]
    make_config(tmp_path)
    words = json.dumps([dataclasses.asdict(case) for case in cases])
    for part in ("first", "second"):
        started = Started("recording.py", [part, tmp_path, words], tmp_path, ranks=2)
        assert started.wait(500) == 0, started.text()[-4000:]
        started.require_nothing_left()
    for case in cases:
        check_case(case, tmp_path, ranks=2)


# ------------------------------------------------------------------------------------------ other folders


def _whole(tmp_path, **options):
    config = make_config(tmp_path)
    return config, record(config, tmp_path / "whole", **options)


def _same_end(left: Path, right: Path):
    values = [tiny_training.weights(path) for path in (left, right)]
    assert values[0].keys() == values[1].keys() and len(values[0]) > 12
    for key, value in values[0].items():
        np.testing.assert_array_equal(value, values[1][key], err_msg=key)


@pytest.mark.parametrize("name", ["best_model", "a name of my own", "iter_99"])
def test_a_folder_may_have_any_name(tmp_path, name):
    """The iteration is in the folder, not in its name, from which PaddleSeg takes it."""
    config, steps = _whole(tmp_path)
    folder = tmp_path / "elsewhere" / name
    shutil.copytree(tmp_path / "whole" / "iter_5", folder)
    again = record(config, tmp_path / "more", resume_model=str(folder))
    assert again == steps[5:]
    _same_end(tmp_path / "whole" / "iter_10", tmp_path / "more" / "iter_10")


@pytest.mark.parametrize("optimizer", ["Momentum", "Adam", "AdamW"])
def test_a_folder_of_paddleseg(tmp_path, optimizer, warnings):
    """What its train loop writes, `paddle.save` of both state dicts into iter_N, continues with everything it holds."""
    opts = [f"optimizer.type={optimizer}"]
    config = make_config(tmp_path, opts)
    steps = record(config, tmp_path / "whole", do_eval=False)
    ours, theirs = tmp_path / "whole" / "iter_5", tmp_path / "paddleseg" / "iter_5"
    theirs.mkdir(parents=True)
    for name in ("model.pdparams", "model.pdopt"):
        paddle.save(paddle.load(str(ours / name)), str(theirs / name))
    paddle.nn.Conv2D(3, 3, 3)
    again = record(config, tmp_path / "more", do_eval=False, resume_model=str(theirs))
    assert again == steps[5:]
    _same_end(tmp_path / "whole" / "iter_10", tmp_path / "more" / "iter_10")
    assert any("as PaddleSeg does" in text for text in warnings)


def test_a_folder_that_paddleseg_itself_wrote(tmp_path):
    """Its own training loop, run here, and its own checkpoint."""
    from paddleseg.core import train

    config = make_config(tmp_path)
    from paddle_dnl import registry

    dataset = registry.build(config.train_dataset_cfg, "dataset", "train_dataset")
    model = registry.build(config.model_cfg, "model")
    schedule = paddle.optimizer.lr.PolynomialDecay(0.05, 10, end_lr=0, power=0.9)
    optimizer = paddle.optimizer.Adam(schedule, parameters=model.parameters())

    class Loss(paddle.nn.Layer):
        def forward(self, logit, label):
            return paddle.nn.functional.cross_entropy(logit, label, axis=1, ignore_index=255)

    losses = {"types": [Loss(), Loss()], "coef": [1, 0.4]}
    train(model, dataset, None, optimizer, str(tmp_path / "theirs"), iters=5, batch_size=2, save_interval=5,
          log_iters=100, losses=losses)  # fmt: skip
    folder = tmp_path / "theirs" / "iter_5"
    assert not (folder / "manifest.json").exists()
    opts = ["optimizer.type=Adam", "lr_scheduler.learning_rate=0.05"]
    steps = record(make_config(tmp_path, opts), tmp_path / "more", do_eval=False, resume_model=str(folder))
    assert [step["iteration"] for step in steps] == [6, 7, 8, 9, 10]
    rates = [float.fromhex(step["lr"]) for step in steps]
    np.testing.assert_allclose(rates, [0.05 * (1 - i / 10) ** 0.9 for i in range(5, 10)], rtol=1e-6)
    assert tiny_training.weights(tmp_path / "more" / "iter_10")[
        "optimizer:cls.weight_beta1_pow_acc_0"
    ] == pytest.approx(0.9**11, rel=1e-5)


# ------------------------------------------------------------------------------------------ changes


def test_what_changed_is_said(tmp_path, warnings):
    config, _ = _whole(tmp_path)
    folder = str(tmp_path / "whole" / "iter_5")
    cases = {
        "batch_size 2 -> 4": (["batch_size=4"], {}),
        "grad_accum_iters 1 -> 2": (["grad_accum_iters=2"], {}),
        "train_images 8 -> 16": ([], {"repeats": 2}),
        "seed 7 -> 8": ([], {"seed": 8}),
    }
    for number, (text, (opts, options)) in enumerate(cases.items()):
        warnings.clear()
        record(make_config(tmp_path, [*opts, "iters=6"]), tmp_path / f"more_{number}", resume_model=folder, **options)
        assert [w for w in warnings if text in w and "uninterrupted run" in w], (text, warnings)
    warnings.clear()
    record(config, tmp_path / "same", resume_model=folder)
    assert not [w for w in warnings if "uninterrupted run" in w]


def test_other_pictures_under_the_same_count_are_noticed(tmp_path, warnings):
    _, steps = _whole(tmp_path)
    folder = str(tmp_path / "whole" / "iter_5")
    data = tmp_path / "data"
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    opts = [f"train_dataset.dataset_root={moved}", f"train_dataset.train_path={moved / 'train.txt'}"]
    again = record(make_config(tmp_path, opts), tmp_path / "moved_run", resume_model=folder)
    assert again == steps[5:] and not [w for w in warnings if "uninterrupted run" in w]
    lines = (moved / "train.txt").read_text().splitlines(keepends=True)
    (moved / "train.txt").write_text("".join([lines[1], lines[0], *lines[2:]]))
    record(make_config(tmp_path, opts), tmp_path / "other_run", resume_model=folder)
    assert [w for w in warnings if "train_files" in w and "uninterrupted run" in w]


@pytest.mark.slow
def test_another_number_of_ranks_is_said(tmp_path):
    config, _ = _whole(tmp_path)
    case = Case("Adam", False, False, 0)
    (tmp_path / str(case)).mkdir()
    shutil.move(tmp_path / "whole", tmp_path / str(case) / "parts")
    shutil.rmtree(tmp_path / str(case) / "parts" / "iter_10")
    words = json.dumps([dataclasses.asdict(case)])
    started = Started("recording.py", ["second", tmp_path, words], tmp_path, ranks=2)
    assert started.wait() == 0, started.text()[-4000:]
    assert "resuming with world_size 1 -> 2: the samples will not be those of an uninterrupted run" in started.text()


def test_another_optimizer_is_refused(tmp_path):
    _whole(tmp_path)
    config = make_config(tmp_path, ["optimizer.type=Momentum", "optimizer.momentum=0.9"])
    with pytest.raises(CheckpointError, match="model.pdopt.*another optimizer"):
        record(config, tmp_path / "more", resume_model=str(tmp_path / "whole" / "iter_5"))


def test_a_run_that_is_complete_stays_as_it_is(tmp_path):
    config, _ = _whole(tmp_path)
    before = read_pickle(tmp_path / "whole" / "iter_10" / "model.pdstates")
    stamp = (tmp_path / "whole" / "iter_10").stat().st_mtime_ns
    assert record(config, tmp_path / "whole", resume_model="auto") == []
    assert read_pickle(tmp_path / "whole" / "iter_10" / "model.pdstates") == before
    assert (tmp_path / "whole" / "iter_10").stat().st_mtime_ns == stamp
