# SPDX-License-Identifier: Apache-2.0
"""What decides a published score besides the forward pass, read from a resolved configuration.

The same names stand in the tables of tests/recipes, whose values come from the sources' own files.
"""

from paddle_dnl.config import Config
from paddle_dnl.models.backbones.dgmn2 import DropPath
from paddle_dnl.models.backbones.resnet import ResNet
from paddle_dnl.models.build import build_model

import paddle
from paddle import nn

_SIZES = {"ResizeToFit": "frame", "ResizeByShort": "short_size"}
_DISTORTIONS = ("RandomDistort", "PhotoMetricDistortion", "RandomBrightnessShift")
_CROPS = ("RandomCrop", "RandomPaddingCrop")


def facts_of(config: Config) -> dict:
    """Facts of one configuration; keys without a meaning for it are left out."""
    model, optimizer, schedule = config.model_cfg, config.optimizer_cfg, config.lr_scheduler_cfg
    facts = {
        "batch_per_gpu": config.batch_size,
        "iters": config.iters,
        "classes": model["num_classes"],
        "optimizer": optimizer["type"],
        "momentum": optimizer.get("momentum"),
        "weight_decay": optimizer["weight_decay"],
        "no_decay": [rule["name"] for rule in optimizer.get("custom_cfg", []) if rule["weight_decay_mult"] == 0],
        "clip": optimizer.get("grad_clip_cfg"),
        "schedule": schedule["type"],
        "learning_rate": schedule["learning_rate"],
        "power": schedule["power"],
        "end": schedule.get("end_lr", 1e-4),
        "warm_up": schedule.get("warmup_iters", 0),
        "losses": _losses(config.loss_cfg),
        "train": _pipeline(config.train_dataset_cfg["transforms"]),
        "test": _pipeline(config.val_dataset_cfg["transforms"]),
        "evaluation": _evaluation(config.test_config),
        "while_training": _evaluation(config.test_config_while_training),
        "start_weights": _start_weights(config),
        "data": [
            f"{cfg['type']} {cfg.get('mode', 'train')}" for cfg in (config.train_dataset_cfg, config.val_dataset_cfg)
        ],
    }
    for key in ("temperature", "use_scale", "whitening"):
        if key in model:
            facts[key] = model[key]
    return {key: value for key, value in facts.items() if value is not None}


def network_facts(config: Config) -> dict:
    """Facts of the network that a configuration builds: blocks, dilations, dropout, how logits are resized."""
    with paddle.LazyGuard():  # no initial values
        model = build_model(config)
    outputs = len(config.loss_cfg["coef"])
    dropped = [layer.p for layer in model.sublayers() if isinstance(layer, nn.Dropout2D | nn.Dropout) and layer.p]
    backbone = model.backbone
    facts = {"dropout": dropped * outputs if len(dropped) == 1 else dropped or [0] * outputs}
    if isinstance(backbone, ResNet):
        stages = [[getattr(backbone, f"bb_{i}_{k}") for k in range(n)] for i, n in enumerate(_counts(backbone))]
        facts |= {
            "blocks": _counts(backbone),
            "stem": [conv._conv._out_channels for name, conv in backbone.named_children() if name.startswith("conv1_")],
            "dilations": [_dilation(stage[-1]) for stage in stages],
            "dilations_of_first_blocks": [_dilation(stage[0]) for stage in stages],
            "logits_align_corners": model.align_corners,
        }
    else:
        facts |= {"blocks": list(backbone.depths), "drop_path": max(_drop_paths(model))}
    return facts


def _counts(backbone: ResNet) -> list[int]:
    names = [name.split("_") for name, _ in backbone.named_children() if name.startswith("bb_")]
    return [sum(int(stage) == i for _, stage, _ in names) for i in range(4)]


def _dilation(block) -> int:
    """Of the 3x3 convolution."""
    return max(layer._dilation[0] for layer in block.sublayers() if isinstance(layer, nn.Conv2D))


def _drop_paths(model) -> list[float]:
    return [layer.rate for layer in model.sublayers() if isinstance(layer, DropPath)]


def _losses(cfg: dict) -> list[dict]:
    """One entry per output: kind, coefficient and what changes its value."""
    keys = ("weight", "thresh", "min_kept_per_image")
    return [
        {"type": loss["type"], "coef": coef, "mean_of_all": not loss.get("avg_non_ignore", True)}
        | {key: loss[key] for key in keys if key in loss}
        for loss, coef in zip(cfg["types"], cfg["coef"], strict=True)
    ]


def _pipeline(transforms: list[dict]) -> dict:
    """Sizes, ranges and constants, whatever the transforms are called."""
    facts = {"resized_as": "uint8" if transforms[0]["type"] == "ToUint8" else "float32"}
    normalised = False
    for step in transforms:
        kind = step["type"]
        if kind in _SIZES:
            facts["size"] = step[_SIZES[kind]]
            if "max_size" in step:
                facts["long_side"] = step["max_size"]
        if "ratio_range" in step or "scale_range" in step:
            facts["scale"] = step.get("ratio_range") or step["scale_range"]
        if kind == "ResizeStepScaling":
            facts |= {
                "scale": [step["min_scale_factor"], step["max_scale_factor"]],
                "scale_step": step["scale_step_size"],
            }
        if "aspect_range" in step:
            facts["aspect"] = step["aspect_range"]
        if kind in _CROPS:
            facts["crop"] = step["crop_size"]
            if "category_max_ratio" in step:
                facts["category_max_ratio"] = step["category_max_ratio"]
        if kind == "RandomHorizontalFlip":
            facts["flip"] = step.get("prob", 0.5)
        if kind in _DISTORTIONS:
            ranges = {key: value for key, value in step.items() if key.endswith("_range") or key in ("delta", "prob")}
            facts["distortion"] = {"type": kind, **ranges}
        if kind == "Normalize":
            mean, std = step.get("mean", [0.5] * 3), step.get("std", [0.5] * 3)
            facts |= {
                "mean": [round(255 * v, 3) for v in mean],
                "std": [round(255 * v, 3) for v in std],
                "order": "RGB",
            }
        if kind == "SubtractMeanBGR":
            mean = step.get("mean", [102.9801, 115.9465, 122.7717])
            facts |= {"mean": list(mean), "std": [1.0] * 3, "order": "BGR"}
        normalised = normalised or kind in ("Normalize", "SubtractMeanBGR")
        if kind == "Padding":
            facts["padded_to"] = step["target_size"]
            facts["padding"] = {
                "value": step.get("im_padding_value", 127.5),
                "normalised": normalised,
                "label": step.get("label_padding_value", 255),
                "place": "random" if step.get("random_offset") else "right and bottom",
            }
    return facts


def _evaluation(cfg: dict) -> dict:
    """Windows, scales, flips, and by which rule they are averaged."""
    facts = {"align_corners": cfg.get("align_corners", False)}
    if cfg.get("is_slide"):
        facts |= {"window": cfg["crop_size"], "stride": cfg["stride"]}
    if cfg.get("aug_eval"):
        facts |= {"scales": cfg["scales"], "flip": cfg.get("flip_horizontal", False), "average": cfg["average"]}
    return facts


def _start_weights(config: Config) -> str:
    """Name of the file."""
    named = config.model_cfg["backbone"].get("pretrained") or config.dic["start_weights"]["file"]
    return named.rsplit("/", 1)[-1]
