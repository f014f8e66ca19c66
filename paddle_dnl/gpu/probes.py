# SPDX-License-Identifier: Apache-2.0
"""Measurements of `paddle-dnl check-gpu` that no program of the package makes; each runs in a process of its own.

Called as `python -m paddle_dnl.gpu.probes NAME SETTINGS`; prints one line of JSON, also for an error that is to be reported.
"""

import contextlib
import json
import statistics
import sys
import time
from collections.abc import Iterator
from unittest import mock

from paddle_dnl.compat import paddleseg
from paddle_dnl.config.config import Config
from paddle_dnl.deployment.runtime.predictor import Predictor
from paddle_dnl.evaluation.inference import evaluating
from paddle_dnl.losses import build_losses
from paddle_dnl.models.build import build_model
from paddle_dnl.nn import attention, disentangled_nonlocal
from paddle_dnl.optim import build_lr_scheduler, build_optimizer
from paddle_dnl.training import amp

import numpy as np
import paddle

_REPEATS = 5


def device() -> dict:
    """Name, compute capability and memory of the current device, and what Paddle was built with."""
    found = {"paddle": paddle.__version__, "device": paddle.get_device()}
    if _on_gpu():
        properties = paddle.device.cuda.get_device_properties()
        found |= {
            "cards": paddle.device.cuda.device_count(),
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": paddle.version.cuda(),
            "cudnn": paddle.version.cudnn(),
        }
    return found


def attention_ways(rows: int, width: int) -> dict:
    """Largest differences and milliseconds of the implementations of attention, for logits up to about 160,000.

    Args:
        rows: of queries and keys.
        width: of queries, keys and values.
    """
    generator = np.random.default_rng(0)
    q, k, v = (paddle.to_tensor(generator.normal(0, s, (1, rows, width)).astype("float32")) for s in (40, 40, 1))
    reference = attention.attend(q, k, v, implementation="plain")
    found = {}
    for name, dtype in (("streaming", "float32"), ("flash", "float16"), ("flash", "bfloat16")):
        given = [tensor.astype(dtype) for tensor in (q, k, v)]
        wanted = reference
        if dtype != "float32":  # of the same rounded values, and with logits that half precision can hold
            given = [(tensor / scale).astype(dtype) for tensor, scale in zip((q, k, v), (40, 40, 1), strict=True)]
            wanted = attention.attend(*(tensor.astype("float32") for tensor in given), implementation="plain")
        label = f"{name} {dtype}"
        try:
            difference = (attention.attend(*given, implementation=name).astype("float32") - wanted).abs().max()
        except RuntimeError as error:
            found[label] = {"skipped": str(error).split(". Use")[0]}
            continue
        seconds = _seconds(lambda given=given, name=name: attention.attend(*given, implementation=name))
        found[label] = {"difference": float(difference), "milliseconds": round(1000 * seconds, 2)}
    found["finite"] = bool(reference.isfinite().all())
    return found


def logits(config: str, weights: str, precision: str, crop: int) -> dict:
    """Largest attention logit of a trained DNLNet, and how far its outputs move under autocast.

    Args:
        config: YAML path.
        weights: .pdparams of the whole model.
        precision: of autocast.
        crop: side of the random images.
    """
    model = build_model(config, weights)
    largest = []

    def watched(q, k, v, scale=1.0, *settings, **named):
        with attention.full_precision():
            products = paddle.matmul(q.astype("float32"), k.astype("float32"), transpose_y=True) * scale
        largest.append(float(products.abs().max()))
        return attend(q, k, v, scale, *settings, **named)

    attend = disentangled_nonlocal.attend
    images = paddle.to_tensor(np.random.default_rng(0).normal(size=(1, 3, crop, crop)).astype("float32"))
    with evaluating(model), paddle.no_grad(), mock.patch.object(disentangled_nonlocal, "attend", watched):
        exact = model(images)[0]
        with amp.autocast(amp.effective_precision(precision)):
            rounded = model(images)[0].astype("float32")
    return {
        "largest_logit": max(largest),
        "difference": float((rounded - exact).abs().max() / exact.abs().max()),
        "same_class": float((rounded.argmax(1) == exact.argmax(1)).astype("float32").mean()),
    }


def exported(folder: str, config: str, weights: str, size: int, **options) -> dict:
    """Share of pixels to which an exported folder gives the class that the dynamic graph gives.

    Args:
        folder: of the export.
        config, weights: of the model.
        size: side of the square input.
        options: see `BackendOptions`.
    """
    model = build_model(config, weights)
    images = np.random.default_rng(0).normal(size=(1, 3, size, size)).astype("float32")
    with evaluating(model), paddle.no_grad():
        wanted = model(paddle.to_tensor(images))[0].numpy().argmax(1)
    classes = np.asarray(Predictor(folder, **options).run(images)).reshape(wanted.shape)
    return {"agreement": float((classes == wanted).mean())}


def stages(config: str, crop: int, batch: int, precision: str) -> dict:
    """Milliseconds of a training step's stages and the peak of GPU memory, of our DNLNet-R50 and of plain PaddleSeg's.

    Args:
        config: YAML path; its losses and optimizer are used.
        crop: side of the images.
        batch: images per step.
        precision: of autocast.
    """
    settings = (Config(config), crop, batch, precision)
    found = {"ours": _stages(build_model("dnlnet_resnet50_os8_cityscapes_1024x512_80k"), *settings)}
    if not paddleseg.is_installed():
        found["paddleseg"] = {"skipped": "PaddleSeg is not installed"}
        return found
    backbone = paddleseg.find("ResNet50_vd", "backbone")(output_stride=8)
    found["paddleseg"] = _stages(paddleseg.find("DNLNet", "model")(num_classes=19, backbone=backbone), *settings)
    return found


def channels_last(config: str, crop: int, batch: int, precision: str) -> dict:
    """`_stages` of our DNLNet-R50 in NCHW and, where the device has it, in NHWC, from the same weights; `losses` of each step.

    Args:
        config, crop, batch, precision: see `stages`.
    """
    found = {}
    for layout in ("NCHW", "NHWC"):
        paddle.seed(0)
        model = build_model("dnlnet_resnet50_os8_cityscapes_1024x512_80k")
        amp.set_data_format(model, layout, amp.effective_precision(precision))
        losses: list[float] = []
        found[layout] = _stages(model, Config(config), crop, batch, precision, losses)
        found[layout] |= {"losses": losses, "in_use": model.backbone.channels_last}
    return found


def _stages(model, config: Config, crop: int, batch: int, precision: str, found: list[float] | None = None) -> dict:
    losses = build_losses(config.loss_cfg)
    optimizer = build_optimizer(config.optimizer_cfg, model, build_lr_scheduler(config.lr_scheduler_cfg, config.iters))
    generator = np.random.default_rng(0)
    images = paddle.to_tensor(generator.normal(size=(batch, 3, crop, crop)).astype("float32"))
    labels = paddle.to_tensor(generator.integers(0, 19, (batch, crop, crop)))
    precision = amp.effective_precision(precision)
    scaler = amp.make_scaler(precision)
    times: dict[str, list[float]] = {"forward": [], "backward": [], "optimizer": []}
    if _on_gpu():
        paddle.device.cuda.empty_cache()
        paddle.device.cuda.reset_max_memory_allocated()
    model.train()
    for _ in range(_REPEATS + 2):
        with _timed(times["forward"]), amp.autocast(precision):
            loss = sum(value for _, value in losses(model(images), labels, None, model, {}))
        with _timed(times["backward"]):
            scaler.scale(loss).backward()
        with _timed(times["optimizer"]):
            scaler.step(optimizer)
            scaler.update()
            optimizer.clear_grad(set_to_zero=False)
        if found is not None:
            found.append(float(loss))
    result = {name: round(1000 * statistics.median(taken[2:]), 2) for name, taken in times.items()}
    if _on_gpu():
        result["peak_mib"] = paddle.device.cuda.max_memory_allocated() >> 20
    return result


@contextlib.contextmanager
def _timed(to: list[float]) -> Iterator[None]:
    """Context that appends its seconds to a list, with all work on the device done."""
    _synchronise()
    began = time.perf_counter()
    yield
    _synchronise()
    to.append(time.perf_counter() - began)


def _seconds(function) -> float:
    """Median time of some calls, with all work on the device done."""
    times: list[float] = []
    for _ in range(_REPEATS):
        with _timed(times):
            function()
    return statistics.median(times)


def _synchronise() -> None:
    if _on_gpu():
        paddle.device.synchronize()


def _on_gpu() -> bool:
    return paddle.get_device().startswith("gpu")


_PROBES = {probe.__name__: probe for probe in (device, attention_ways, logits, exported, stages, channels_last)}


def main(argv: list[str]) -> int:
    """Runs the probe that `argv` names; `place` among its settings selects the device."""
    name, settings = argv[0], json.loads(argv[1])
    paddle.set_device(settings.pop("place"))
    print(json.dumps(_PROBES[name](**settings)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
