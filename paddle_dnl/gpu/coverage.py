# SPDX-License-Identifier: Apache-2.0
"""Every operator of training and evaluation, by family, against the kernels that a GPU build of Paddle registers."""

from dataclasses import dataclass
from unittest import mock

from paddle_dnl.config.config import Config
from paddle_dnl.evaluation.inference import evaluating, infer
from paddle_dnl.gpu.kernels import choosing_as_on_a_gpu, launched_kernels
from paddle_dnl.losses.build import build_losses
from paddle_dnl.models.section import build_section
from paddle_dnl.nn import attention
from paddle_dnl.optim.optimizers import build_optimizer
from paddle_dnl.optim.schedules import build_lr_scheduler
from paddle_dnl.training.loss_window import all_finite

import numpy as np
import paddle
import paddle.nn.functional as F

# One configuration for each network and dialect; depth and width change no operator.
FAMILIES = {
    "DNLNet, OpenMMLab": "dnl_r50-d8_512x1024_40k_cityscapes",
    "DNLNet, authors (instance whitening)": "dnl_nowd_in_resnet101_cityscapes_769x769_60k",
    "DNLNet, authors (layer whitening)": "dnl_nowd_ln_resnet101_cityscapes_769x769_60k",
    "DNLNet, PaddleSeg": "dnlnet_resnet50_os8_cityscapes_1024x512_80k",
    "DMNet, OpenMMLab": "dmnet_r50-d8_512x1024_40k_cityscapes",
    "DMNet, PaddleSeg": "dmnet_cityscapes_1024x512_100k",
    "DGMN2, Semantic FPN": "fpn_dgmn2_tiny_cityscapes_769x769_40k",
    "DGMN2, SETR-Naive": "setr_naive_dgmn2_tiny_cityscapes_769x769_40k",
    "DGMN2, SETR-PUP": "setr_pup_dgmn2_tiny_cityscapes_769x769_40k",
    "DGMN2, SETR-MLA": "setr_mla_dgmn2_tiny_cityscapes_769x769_40k",
}
# A CPU has no kernel for these, or Paddle does not call them there: statistics over cards, and loss scaling.
ONLY_ON_A_GPU = ("sync_batch_norm", "sync_batch_norm_grad", "check_finite_and_unscale", "update_loss_scaling")
# Names that are newer than Paddle 2.6, and what 2.6 calls the same kernel.
_OLDER_NAMES = {"full_": "full", "full_with_tensor": "full"}
SIDE = 96
TILE_ROWS = 64  # of the 144 queries of such an image at output stride 8


@dataclass
class Kernel:
    """A kernel with what a GPU build offers for it.

    Args:
        name: Paddle's, for instance `conv2d_grad`.
        dtypes: floating-point dtypes that it is registered for on GPUs; None where there is no such kernel at all.
        autocast: `half`, `float32` or `input`: what AMP at level O1 makes of its inputs; `input` leaves them.
        families: those of `FAMILIES` that launch it.
    """

    name: str
    dtypes: list[str] | None
    autocast: str
    families: list[str]

    @property
    def fault(self) -> str | None:
        """Why a run on a GPU would stop here, or None. Where only a half is missing, autocast falls back to float32."""
        if self.dtypes is None:
            return "no GPU kernel"
        if self.dtypes and "float32" not in self.dtypes:
            return "no float32 kernel"
        return "no float16 kernel" if self.autocast == "half" and "float16" not in self.dtypes else None


def small_family(family: str) -> Config:
    """The configuration of a family with ResNet18 in place of a deeper one: the same operators, sooner."""
    config = Config(FAMILIES[family])
    backbone = config.dic["model"]["backbone"]
    if backbone["type"].startswith("ResNet"):
        backbone["type"] = "ResNet18"
    return config


def _step_and_evaluation(config: Config, images: paddle.Tensor, labels: paddle.Tensor) -> None:
    """One training step and one prediction, the building of the network included."""
    model = build_section(config.model_cfg)
    losses = build_losses(config.loss_cfg)
    optimizer = build_optimizer(config.optimizer_cfg, model, build_lr_scheduler(config.lr_scheduler_cfg, config.iters))
    with choosing_as_on_a_gpu():
        model.train()
        loss = sum(value for _, value in losses(model(images), labels, None, model, {}))
        loss.backward()
        bool(all_finite(p.grad for p in model.parameters() if p.grad is not None))
        optimizer.step()
        optimizer.clear_grad(set_to_zero=False)
        with evaluating(model), paddle.no_grad():
            predicted = infer(model, images)
            predicted.argmax(axis=1, dtype="int32")
            F.softmax(predicted, axis=1)


def launched_by(family: str) -> set[str]:
    """The kernels of a family, with the attention map as a whole and in tiles."""
    config = small_family(family)
    images = paddle.to_tensor(np.random.default_rng(0).random([2, 3, SIDE, SIDE], np.float32))
    labels = paddle.to_tensor(np.zeros([2, SIDE, SIDE], np.int64))

    def both() -> None:
        _step_and_evaluation(config, images, labels)
        with mock.patch.object(attention, "_GPU", attention._GPU._replace(plain_bytes=0, tile_rows=TILE_ROWS)):
            _step_and_evaluation(config, images, labels)

    return launched_kernels(both)


def kernels_of_all(stored: dict, launched: dict[str, set[str]]) -> list[Kernel]:
    """One `Kernel` for each that any family launches, and those that only a GPU run has.

    Args:
        stored: `{"paddlepaddle-gpu": version, "kernels": {name: dtypes}}`.
        launched: kernels by family.
    """
    names = set().union(*launched.values(), ONLY_ON_A_GPU)
    halves, singles = (lists["float16"]["O1"] for lists in (paddle.amp.white_list(), paddle.amp.black_list()))

    def autocast(name: str) -> str:
        forward = name.removesuffix("_grad")
        aliases = {forward, f"{forward}_v2", f"reduce_{forward}"}
        return "half" if aliases & halves else "float32" if aliases & singles else "input"

    return [
        Kernel(
            name,
            stored["kernels"].get(_OLDER_NAMES.get(name, name)),
            autocast(name),
            [family for family, found in launched.items() if name in found],
        )
        for name in sorted(names)
    ]


def coverage_page(stored: dict) -> tuple[str, list[Kernel]]:
    """The text of docs/gpu_kernels.md, and the kernels with a fault.

    Args:
        stored: as for `kernels_of_all`.
    """
    kernels = kernels_of_all(stored, {family: launched_by(family) for family in FAMILIES})
    faulty = [kernel for kernel in kernels if kernel.fault]
    without_half = [k for k in kernels if k.dtypes and not {"float16", "bfloat16"} <= set(k.dtypes)]
    lines = [
        "# Operators and their GPU kernels",
        "",
        f"Made by `tools/gpu_kernels.py`: every operator that Paddle {paddle.__version__} launches for a training step "
        "(forward, losses, backward, finite check, optimizer) and a prediction of each family, recorded with Paddle's profiler "
        "on a CPU while the code takes its GPU paths, and whether the package "
        f"`paddlepaddle-gpu` {stored['paddlepaddle-gpu']} has GPU kernels for it. Nothing here ran on a GPU. "
        "`autocast` is the type to which `--amp_level O1` casts the operator's inputs: `half`, `float32`, or `input` for no "
        "cast; where a half-precision kernel is missing, Paddle casts to float32.",
        "",
        f"Families: {'; '.join(f'`{name}` ({family})' for family, name in FAMILIES.items())}.",
        "",
        f"Operators that lack a required kernel: {', '.join(f'{k.name} ({k.fault})' for k in faulty) or 'none'}.",
        "",
        f"Operators with float32 kernels that lack float16 or bfloat16: {', '.join(f'`{k.name}`' for k in without_half)}. "
        "`DeformableUnfold` casts to float32, losses are computed in float32, and an optimizer without a kernel for the "
        "type of the weights is refused before a training with `--amp_level O2`.",
        "",
        "| Operator | float32 | float16 | bfloat16 | autocast | Families |",
        "|---|---|---|---|---|---|",
    ]
    for kernel in kernels:
        cells = ["yes" if dtype in (kernel.dtypes or ()) else "-" for dtype in ("float32", "float16", "bfloat16")]
        count = "GPU only" if kernel.name in ONLY_ON_A_GPU else f"{len(kernel.families)} of {len(FAMILIES)}"
        lines.append(f"| `{kernel.name}` | {' | '.join(cells)} | {kernel.autocast} | {count} |")
    return "\n".join(lines) + "\n", faulty
