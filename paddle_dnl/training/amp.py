# SPDX-License-Identifier: Apache-2.0
"""Mixed precision (AMP): one code path of training and evaluation for fp32, fp16 and bf16."""

import contextlib
from collections.abc import Iterable

from paddle_dnl.errors import UsageError
from paddle_dnl.log import logger

import paddle
from paddle.base import core

PRECISIONS = ("fp32", "fp16", "bf16")
_DTYPES = {"fp16": "float16", "bf16": "bfloat16"}
FIRST_SCALE = 2.0**15  # of the loss in fp16

# Bilinear resizing and losses need float32; attention switches to float32 itself (nn/attention.py).
_KEEP_FLOAT32 = {"bilinear_interp_v2", "softmax_with_cross_entropy", "cross_entropy_with_softmax"}


def _supports(precision: str) -> bool:
    """Whether the current device is a GPU that computes in `precision`."""
    if not (paddle.is_compiled_with_cuda() and paddle.get_device().startswith("gpu")):
        return False
    check = {"fp16": "is_float16_supported", "bf16": "is_bfloat16_supported"}[precision]
    return bool(getattr(paddle.amp, check)())


def effective_precision(precision: str) -> str:
    """`precision` where the current device has it, else `fp32` with one notice.

    Raises:
        UsageError: not one of fp32, fp16, bf16.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    if precision == "fp32" or _supports(precision):
        return precision
    logger.warning(f"--precision {precision}: {paddle.get_device()} does not have it; computing in float32")
    return "fp32"


def autocast(precision: str, amp_level: str = "O1"):
    """Context in which the forward pass runs; without effect for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return paddle.amp.auto_cast(level=amp_level, dtype=_DTYPES[precision], custom_black_list=_KEEP_FLOAT32)


def set_data_format(model: paddle.nn.Layer, data_format: str, precision: str, is_static: bool = False) -> None:
    """Chooses the memory layout of the backbone's convolutions; one line says what `NHWC` comes to on this device.

    Args:
        model: its layers with an attribute `channels_last` take part.
        data_format: `NCHW`, or `NHWC` for channels-last.
        precision: of autocast; float32 stays in NCHW.
        is_static: the model is converted to a static graph, which has no layout tuning.
    """
    layers = [layer for layer in model.sublayers(include_self=True) if hasattr(layer, "channels_last")]
    wanted = data_format == "NHWC"
    if wanted and (obstacle := _nhwc_obstacle(layers, precision, is_static)):
        logger.warning(f"--data_format NHWC: {obstacle}; computing in NCHW")
        wanted = False
    elif wanted:
        logger.info(
            "the backbone's convolutions compute in channels-last layout (NHWC); not tested on a GPU by the project"
        )
    for layer in layers:
        layer.channels_last = wanted


def _nhwc_obstacle(layers: list, precision: str, is_static: bool) -> str | None:
    """Why channels-last would do nothing, or None."""
    if not (paddle.is_compiled_with_cuda() and paddle.get_device().startswith("gpu")):
        return f"{paddle.get_device()} is no GPU with tensor cores"
    if paddle.device.cuda.get_device_capability()[0] < 7:
        return "this GPU has no tensor cores (compute capability below 7.0)"
    if precision == "fp32":
        return "it is for --precision fp16 or bf16"
    if is_static:
        return "a static graph (--to_static_training) does not support it"
    return None if layers else "only this package's ResNet backbones support it"


def gpu_dtypes(kernels: Iterable[str]) -> set[str]:
    """Dtypes for GPUs among registrations of a kernel, which Paddle gives as `(GPU, Undefined(AnyLayout), float16)`."""
    return {kernel.removesuffix(")").rpartition(", ")[2] for kernel in kernels if kernel.startswith("(GPU")}


def decorate(model: paddle.nn.Layer, optimizer, precision: str) -> tuple:
    """Model and optimizer of level O2: weights in half precision, master weights in float32.

    Raises:
        UsageError: this build of Paddle has no kernel with which the optimizer could update such weights.
    """
    # Paddle 2.6.2 has no kernel of `momentum` for bfloat16.
    on_gpu = gpu_dtypes(core._get_registered_phi_kernels("all").get(type(optimizer).__name__.lower(), ()))
    if on_gpu and _DTYPES[precision] not in on_gpu:
        raise UsageError(
            f"--precision {precision} --amp_level O2: Paddle {paddle.__version__} cannot update {_DTYPES[precision]} weights "
            f"with {type(optimizer).__name__}; use --amp_level O1, which keeps the weights in float32"
        )
    return paddle.amp.decorate(model, optimizer, level="O2", dtype=_DTYPES[precision], save_dtype="float32")


class _PassThrough:
    """The interface of the loss scaler for precisions that need none."""

    skips = skipped = False

    def scale(self, loss: paddle.Tensor) -> paddle.Tensor:
        """The loss itself."""
        return loss

    def step(self, optimizer) -> None:
        """Applies the gradients."""
        optimizer.step()

    def update(self) -> None:
        """Nothing to adapt."""

    def state_dict(self) -> dict:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Nothing to restore."""


class _LossScaler(paddle.amp.GradScaler):
    """Paddle's scaler with a state of plain numbers, which a checkpoint of any precision may lack.

    `skips` says that updates from gradients with NaN or infinity are skipped, `skipped` that the last one was.
    """

    skipped = False

    @property
    def skips(self) -> bool:
        return self.is_enable()

    @property
    def scale_now(self) -> float:
        """The factor of the loss."""
        return self.state_dict()["scale"][0]

    def update(self) -> None:
        """Adapts the factor: half after a skipped update, double after 2000 that were not."""
        if self.skips:
            # The optimizer has read this flag, the step's only wait for the device; the factor stays there.
            # Paddle 2.6 spells its name `_cache_founf_inf`.
            flag = self._cache_found_inf if hasattr(self, "_cache_found_inf") else self._cache_founf_inf
            self.skipped = bool(flag)
            super().update()

    def state_dict(self) -> dict:
        """Scale and counters; empty where scaling is off."""
        state = super().state_dict()
        return {**state, "scale": [float(value) for value in state["scale"]]} if state else {}

    def load_state_dict(self, state: dict) -> None:
        """Continues from `state`; an empty one, of a run in another precision, leaves the first scale."""
        if state:
            super().load_state_dict(state)


def make_scaler(precision: str):
    """Dynamic loss scaling for fp16; bf16 has float32's range and fp32 needs none."""
    if precision != "fp16":
        return _PassThrough()
    return _LossScaler(init_loss_scaling=FIRST_SCALE, incr_every_n_steps=2000)
