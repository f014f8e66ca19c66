# SPDX-License-Identifier: Apache-2.0
"""Mixed precision without a graphics card: what is asked of Paddle, the fall-back, and the loss scaler's arithmetic."""

import contextlib
import json
import logging
import pickle
from pathlib import Path
from types import SimpleNamespace

from paddle_dnl.errors import UsageError
from paddle_dnl.training import amp

import numpy as np
import paddle
import pytest
from paddle.amp import grad_scaler


@pytest.fixture
def notices():
    """Records of the package's logger, which does not propagate."""
    found = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    amp.logger.addHandler(handler)
    yield found
    amp.logger.removeHandler(handler)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_falls_back_with_one_notice(precision, notices, monkeypatch):
    monkeypatch.setattr(amp, "_supports", lambda precision: False)
    assert amp.effective_precision(precision) == "fp32"
    assert len(notices) == 1 and precision in notices[0] and "float32" in notices[0]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_kept_without_notice_where_supported(precision, notices, monkeypatch):
    monkeypatch.setattr(amp, "_supports", lambda precision: True)
    assert amp.effective_precision(precision) == precision
    assert notices == []


def test_the_cpu_supports_neither():
    with _device("cpu"):
        assert not amp._supports("fp16") and not amp._supports("bf16")


@contextlib.contextmanager
def _device(name):
    before = paddle.get_device()
    paddle.set_device(name)
    yield
    paddle.set_device(before)


def test_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="'fp8' is not one of fp32, fp16, bf16"):
        amp.effective_precision("fp8")


@pytest.mark.parametrize("precision, dtype", [("fp16", "float16"), ("bf16", "bfloat16")])
def test_what_autocast_asks_of_paddle(precision, dtype, monkeypatch):
    asked = {}
    monkeypatch.setattr(paddle.amp, "auto_cast", lambda **settings: asked.update(settings) or contextlib.nullcontext())
    with amp.autocast(precision, "O2"):
        pass
    assert asked["level"] == "O2" and asked["dtype"] == dtype
    assert {"bilinear_interp_v2", "softmax_with_cross_entropy"} <= asked["custom_black_list"]
    asked.clear()
    with amp.autocast("fp32", "O1"):
        pass
    assert asked == {}


def _step(scaler, weight, optimizer, factor):
    """One step of `loss = factor * weight`; returns the gradient that the scaled loss made."""
    scaler.scale((weight * factor).sum()).backward()
    gradient = weight.grad.numpy().copy()
    scaler.step(optimizer)
    scaler.update()
    optimizer.clear_grad()
    return gradient


def _weight_and_optimizer():
    weight = paddle.create_parameter([2], "float32", default_initializer=paddle.nn.initializer.Constant(1.0))
    return weight, paddle.optimizer.SGD(0.1, parameters=[weight])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_scaling_where_none_is_needed(precision):
    scaler = amp.make_scaler(precision)
    weight, optimizer = _weight_and_optimizer()
    np.testing.assert_array_equal(_step(scaler, weight, optimizer, 3.0), [3, 3])
    np.testing.assert_allclose(weight.numpy(), 0.7, rtol=1e-6)
    assert scaler.state_dict() == {}
    scaler.load_state_dict({})
    scaler.load_state_dict({"scale": [4.0]})  # of a run in fp16


def test_fp16_autocast_leaves_the_scaler_on():
    """What the fixture assumes: after our autocast, and one switched off inside it, Paddle's last dtype is float16."""
    with amp.autocast("fp16"), paddle.amp.auto_cast(enable=False):
        pass
    assert grad_scaler.amp_global_state().amp_dtype == "float16"


def test_fp16_scales_and_unscales(on_gpu):
    scaler = amp.make_scaler("fp16")
    weight, optimizer = _weight_and_optimizer()
    np.testing.assert_array_equal(_step(scaler, weight, optimizer, 3.0), [3 * 2**15] * 2)
    np.testing.assert_allclose(weight.numpy(), 0.7, rtol=1e-6)


def test_fp16_skips_a_step_that_overflows_and_halves_the_scale(on_gpu):
    scaler = amp.make_scaler("fp16")
    weight, optimizer = _weight_and_optimizer()
    _step(scaler, weight, optimizer, float("inf"))
    np.testing.assert_array_equal(weight.numpy(), [1, 1])
    assert scaler.state_dict()["scale"] == [2.0**14] and scaler.skipped
    _step(scaler, weight, optimizer, 1.0)
    assert not scaler.skipped


def test_fp16_state_is_plain_and_goes_on(on_gpu):
    scaler = amp.make_scaler("fp16")
    weight, optimizer = _weight_and_optimizer()
    for factor in (float("inf"), 1.0, 1.0):
        _step(scaler, weight, optimizer, factor)
    state = scaler.state_dict()
    assert b"numpy" not in pickle.dumps(state) and state["incr_count"] == 2
    again = amp.make_scaler("fp16")
    again.load_state_dict(pickle.loads(pickle.dumps(state)))
    assert again.state_dict() == state
    assert float(again.scale(paddle.ones([]))) == 2.0**14


def test_fp16_run_may_resume_a_run_in_float32(on_gpu):
    scaler = amp.make_scaler("fp16")
    scaler.load_state_dict(amp.make_scaler("fp32").state_dict())
    assert float(scaler.scale(paddle.ones([]))) == 2.0**15


@pytest.mark.parametrize("optimizer, precision, refused", [
    ("Momentum", "bf16", True), ("Momentum", "fp16", False), ("AdamW", "bf16", False),
])  # fmt: skip
def test_half_precision_weights_need_an_optimizer_that_can_update_them(optimizer, precision, refused, monkeypatch):
    """With the kernels that paddlepaddle-gpu 2.6.2 registers."""
    stored = json.loads((Path(__file__).parents[1] / "data/gpu_kernels.json").read_text())["kernels"]
    registered = {n: [f"(GPU, Undefined(AnyLayout), {dtype})" for dtype in dtypes] for n, dtypes in stored.items()}
    monkeypatch.setattr(amp, "core", SimpleNamespace(_get_registered_phi_kernels=lambda _: registered))
    monkeypatch.setattr(paddle.amp, "decorate", lambda *given, **options: given)
    model = paddle.nn.Linear(1, 1)
    chosen = getattr(paddle.optimizer, optimizer)(parameters=model.parameters())
    if refused:
        with pytest.raises(
            UsageError, match=r"bf16 --amp_level O2: Paddle \S+ cannot update bfloat16 weights with Momentum"
        ):
            amp.decorate(model, chosen, precision)
    else:
        assert amp.decorate(model, chosen, precision) == (model, chosen)


@pytest.fixture
def gpu(monkeypatch):
    """A card with tensor cores, as far as `set_data_format` asks."""
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(paddle.device.cuda, "get_device_capability", lambda: (7, 0))


class _WithBackbone(paddle.nn.Layer):
    def __init__(self, supports=True):
        super().__init__()
        self.backbone = paddle.nn.ReLU()
        if supports:
            self.backbone.channels_last = False


def test_channels_last_is_off_unless_asked_for(gpu, notices):
    model = _WithBackbone()
    amp.set_data_format(model, "NCHW", "fp16")
    assert not model.backbone.channels_last and notices == []
    amp.set_data_format(model, "NHWC", "fp16")
    assert model.backbone.channels_last and len(notices) == 1 and "NHWC" in notices[0]
    amp.set_data_format(model, "NCHW", "fp16")
    assert not model.backbone.channels_last


@pytest.mark.parametrize("change, settings, text", [
    (("is_compiled_with_cuda", lambda: False), {}, "no GPU with tensor cores"),
    (("get_device", lambda: "cpu"), {}, "cpu is no GPU"),
    (("device.cuda.get_device_capability", lambda: (6, 1)), {}, "below 7.0"),
    (None, {"precision": "fp32"}, "for --precision fp16 or bf16"),
    (None, {"is_static": True}, "--to_static_training"),
    (None, {"model": _WithBackbone(supports=False)}, "only this package's ResNet"),
])  # fmt: skip
def test_where_channels_last_does_nothing_one_line_says_why(gpu, notices, monkeypatch, change, settings, text):
    if change:
        monkeypatch.setattr(f"paddle.{change[0]}", change[1])
    given = {"model": _WithBackbone(), "precision": "bf16"} | settings
    amp.set_data_format(given["model"], "NHWC", given["precision"], given.get("is_static", False))
    assert not getattr(given["model"].backbone, "channels_last", False)
    assert len(notices) == 1 and text in notices[0] and notices[0].endswith("computing in NCHW")
