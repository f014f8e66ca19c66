# SPDX-License-Identifier: Apache-2.0
"""Flags and keys of newer PaddleSeg: both forms of a switch, memory and ranks in log lines, devices, what only PaddleX uses."""

import logging
import re
import types

from paddle_dnl import log
from paddle_dnl.cli import export, infer, train, val
from paddle_dnl.deployment.runtime import devices
from paddle_dnl.errors import ConfigError, UsageError
from paddle_dnl.training.records.logs import TrainLog
from paddle_dnl.training.records.profiling import StepProfiler

import numpy as np
import paddle
import pytest
from tiny_training import train as train_tiny
from tiny_training import write_config


@pytest.fixture
def lines():
    """What the logger writes, without its time stamps; the ranks that write are rank 0 again afterwards."""
    kept, handler = [], logging.Handler()
    handler.emit = lambda record: kept.append(record.getMessage())
    handler.addFilter(log._chosen_ranks_only)
    log.logger.addHandler(handler)
    yield kept
    log.logger.removeHandler(handler)
    log.choose_ranks([0])


@pytest.mark.parametrize("flags, expected", [
    ("", None), ("--auc_roc", True), ("--auc_roc True", True), ("--auc_roc=false", False), ("--auc_roc 1", True),
])  # fmt: skip
def test_both_forms_of_a_switch(flags, expected):
    assert val.make_parser().parse_args(["--config", "c", *flags.split()]).auc_roc is expected


def test_area_under_the_curve_through_val(tmp_path, lines):
    """`--auc_roc True` against the share of pairs of pixels that are in the right order."""
    train_tiny(tmp_path)
    weights = tmp_path / "output/iter_10/model.pdparams"
    flags = ["--config", tmp_path / "config.yml", "--model_path", weights, "--auc_roc", "True", "--device", "cpu"]
    assert val.main([*map(str, flags), "--save_dir", str(tmp_path / "scores"), "--save_prob"]) == 0
    said = float(re.search(r"Auc_roc: (\d\.\d{4})", "\n".join(lines))[1])
    label, probability = [], []
    for i in range(3):
        label.append(np.array(paddle.vision.image.image_load(str(tmp_path / f"data/label_{i}.png"))).ravel())
        stored = np.load(next((tmp_path / "scores/prob").glob(f"*{i}.npz")))
        probability.append(np.asarray(stored[stored.files[0]], np.float64).reshape(3, -1))
    label, probability = np.concatenate(label), np.concatenate(probability, 1)
    areas = []
    for k in range(3):
        yes, no = probability[k][label == k], probability[k][label != k]
        areas.append(np.mean((yes[:, None] > no) + 0.5 * (yes[:, None] == no)))
    assert abs(said - np.mean(areas)) < 6e-4


@pytest.mark.parametrize("options, named", [
    ("foo", "foo"), ("bach_range=[1,2]", r"bach_range=\[1,2\]"), ("batch_range=[1,2];foo=3", "foo=3"),
])  # fmt: skip
def test_unknown_options_of_the_profiler_are_refused(tmp_path, options, named):
    with pytest.raises(UsageError, match=f"{named} is not one of batch_range=..., profile_path=..."):
        StepProfiler(options, tmp_path)


def test_options_of_paddlesegs_profiler_are_accepted(tmp_path, lines):
    StepProfiler("batch_range=[3, 5]; state=GPU; tracer_option=Default; profile_path=a;", tmp_path).stop()
    assert [line for line in lines if "ignored" in line and "state" in line]


@pytest.mark.parametrize("flags, wanted", [
    ("", "argmax"), ("--without_argmax", "none"), ("--without_argmax --with_softmax", "softmax"),
    ("--with_softmax", "argmax"), ("--output_op softmax", "softmax"),
])  # fmt: skip
def test_outputs_of_paddleseg_2_5s_export(flags, wanted):
    assert export.parse_args(["--config", "c", *flags.split()]).output_op == wanted


def test_both_forms_of_the_output_are_refused():
    with pytest.raises(UsageError, match="--without_argmax: is PaddleSeg 2.5's form of --output_op; give one of them"):
        export.parse_args("--config c --without_argmax --output_op none".split())


def _log_line(tmp_path, lines, **options):
    writer = TrainLog(
        iters=20,
        log_iters=1,
        steps_per_epoch=4,
        batch_size=2,
        save_dir=tmp_path,
        is_main=False,
        **options,
    )
    writer.add({"loss": 1.5}, steps=1)
    writer.line_if_due(10, 0.01)
    return lines.pop()


PADDLESEG_LINE = (
    r"\[TRAIN\] epoch: 3, iter: 10/20, loss: 1\.5000, lr: 0\.010000, batch_cost: \d+\.\d{4}, reader_cost: \d+\.\d{5}, "
    r"ips: \d+\.\d{4} samples/sec%s \| ETA \d\d:\d\d:\d\d"
)


def test_memory_in_the_log_line(tmp_path, lines, monkeypatch):
    """PaddleSeg's line of develop on a GPU; without one, or with --print_mem_info False, that of its releases."""
    assert re.fullmatch(PADDLESEG_LINE % "", _log_line(tmp_path, lines))
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    assert re.fullmatch(PADDLESEG_LINE % "", _log_line(tmp_path, lines))  # a Paddle for GPUs that computes on a CPU
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(paddle.device.cuda, "max_memory_reserved", lambda: 3 * 2**20 + 5)
    monkeypatch.setattr(paddle.device.cuda, "max_memory_allocated", lambda: 2**20)
    memory = ", max_mem_reserved: 3 MB, max_mem_allocated: 1 MB"
    assert re.fullmatch(PADDLESEG_LINE % memory, _log_line(tmp_path, lines))
    assert re.fullmatch(PADDLESEG_LINE % "", _log_line(tmp_path, lines, print_mem_info=False))


def _run_train(tmp_path, monkeypatch, *flags):
    """The arguments with which train.py begins to train."""
    given = []
    monkeypatch.setattr("paddle_dnl.training.trainer.train_from_config", lambda config, args: given.append(args))
    config = tmp_path / "config.yml"
    if not config.exists():
        write_config(tmp_path)
    train.main(["--config", str(config), "--device", "cpu", "--from_scratch", *flags])
    return given.pop()


def test_flags_replace_keys(tmp_path, monkeypatch, lines):
    keys = ("--opts", "print_mem_info=false", "log_ranks=1")
    assert _run_train(tmp_path, monkeypatch).print_mem_info is True
    assert _run_train(tmp_path, monkeypatch, *keys).print_mem_info is False
    assert log._ranks == {1}
    assert _run_train(tmp_path, monkeypatch, "--print_mem_info", "--log_ranks", "0,3", *keys).print_mem_info is True
    assert log._ranks == {0, 3}
    for wrong in ("", "0,x", "-1"):
        with pytest.raises(UsageError, match="log_ranks: expected numbers of ranks"):
            _run_train(tmp_path, monkeypatch, f"--log_ranks={wrong}")
    with pytest.raises(ConfigError, match="print_mem_info: must be true or false, got 3"):
        _run_train(tmp_path, monkeypatch, "--opts", "print_mem_info=3")


def test_the_chosen_ranks_write(lines, monkeypatch):
    log.choose_ranks([1, 2])
    for rank in range(4):
        monkeypatch.setenv("PADDLE_TRAINER_ID", str(rank))
        log.logger.info(f"rank {rank}")
        log.logger.error(f"error {rank}")
    assert lines == ["error 0", "rank 1", "error 1", "rank 2", "error 2", "error 3"]


def test_settings_of_paddlex(tmp_path, monkeypatch, lines):
    """PaddleSeg's train.py reads them only where PaddleX has it export at each checkpoint."""
    flags = ("--output_op", "softmax", "--input_shape", "1", "3", "64", "64", "--for_fd")
    _run_train(tmp_path, monkeypatch, *flags)
    assert sum("--output_op is ignored, because train.py does not export" in line for line in lines) == 1
    with pytest.raises(SystemExit):
        train.parse_args(["--config", "c", "--output_op", "sigmoid"])


def test_the_gpu_where_there_is_one(monkeypatch):
    """As PaddleSeg's infer.py, but the CPU where there is none; ONNX Runtime stays on the CPU."""
    words = ["--config", "c", "--image_path", "i"]
    assert infer.parse_args(words).device == "cpu"
    monkeypatch.setattr(devices.os.path, "exists", lambda path: path == "/dev/nvidiactl")
    assert infer.parse_args(words).device == "cpu"
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 1)
    assert infer.parse_args(words).device == "gpu"
    assert infer.parse_args([*words, "--use_trt", "True"]).device == "gpu"
    assert infer.parse_args([*words, "--backend", "onnxruntime"]).device == "cpu"
    assert infer.parse_args([*words, "--device", "cpu"]).device == "cpu"


@pytest.mark.parametrize("device", ["gpu", "xpu", "npu", "mlu"])
def test_a_device_that_is_not_there(device):
    assert infer.parse_args(["--config", "c", "--image_path", "i", "--device", device]).device == device
    with pytest.raises(
        UsageError, match=f"--device {device}: this PaddlePaddle is built for CPU only; use --device cpu"
    ):
        devices.require_device(device)


def test_accelerators_are_enabled_by_their_names():
    """What Paddle Inference is told, since none of them is here to be run on."""
    told = []
    config = types.SimpleNamespace(
        enable_xpu=lambda: told.append("xpu"), enable_custom_device=lambda name: told.append(f"custom {name}")
    )
    for device in ("xpu", "npu", "mlu"):
        devices.enable_accelerator(config, device)
    assert told == ["xpu", "custom npu", "custom mlu"]
    assert all(hasattr(paddle.inference.Config, name) for name in vars(config))
