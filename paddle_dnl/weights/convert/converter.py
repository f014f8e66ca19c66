# SPDX-License-Identifier: Apache-2.0
"""Converts weights of other projects: chooses rules by source and model family, converts, reports."""

from collections.abc import Mapping
from dataclasses import replace

from paddle_dnl.log import logger
from paddle_dnl.weights.convert import dgmn2, mmseg, official_dnl, paddleclas, paddleseg, timm, torchvision
from paddle_dnl.weights.convert.describe import looks_like
from paddle_dnl.weights.convert.mapping import ConversionError, ConversionReport, Plan, carry_over, strip_module
from paddle_dnl.weights.convert.rules import Rule

import numpy as np

SOURCES = ("mmseg", "official_dnl", "dgmn2", "paddleseg", "dmnet_paddle", "torchvision", "timm", "paddleclas")

# Model family -> a key by which it is recognised.
_FAMILIES = {
    "dnlnet": "head.dnl_block.conv_mask.weight",
    "dmnet": "dcm_modules.0.filter_gen_conv.weight",
    "dgmn2": "backbone.patch_embed1.conv1.weight",
    "resnet backbone": "conv1_1._conv.weight",
    "dgmn2 backbone": "patch_embed1.conv1.weight",
}
_RULES = {
    ("mmseg", "dnlnet"): (mmseg.backbone_rules, mmseg.dnlnet_rules),
    ("mmseg", "dmnet"): (mmseg.backbone_rules, mmseg.dmnet_rules),
    ("official_dnl", "dnlnet"): (official_dnl.backbone_rules, official_dnl.dnlnet_rules),
    ("dgmn2", "dgmn2"): (dgmn2.backbone_rules, dgmn2.head_rules),
    ("paddleseg", "dnlnet"): (paddleseg.backbone_rules, paddleseg.head_rules),
    ("paddleseg", "dmnet"): (paddleseg.backbone_rules, paddleseg.head_rules),
    ("dmnet_paddle", "dmnet"): (paddleseg.backbone_rules, paddleseg.head_rules),
    ("mmseg", "resnet backbone"): (mmseg.backbone_rules, None),
    ("official_dnl", "resnet backbone"): (official_dnl.backbone_rules, None),
    ("paddleseg", "resnet backbone"): (paddleseg.backbone_rules, None),
    ("dmnet_paddle", "resnet backbone"): (paddleseg.backbone_rules, None),
    ("torchvision", "resnet backbone"): (torchvision.backbone_rules, None),
    ("timm", "resnet backbone"): (timm.backbone_rules, None),
    ("paddleclas", "resnet backbone"): (paddleclas.backbone_rules, None),
    ("dgmn2", "dgmn2 backbone"): (dgmn2.backbone_rules, None),
}
# Layers whose width is the number of classes, and auxiliary heads.
_CLASSIFIER = {
    "dnlnet": r"head\.(cls\.1|aux\.2)\.(weight|bias)",
    "dmnet": r"(cls|fcn_head\.[12])\.(weight|bias)",
    "dgmn2": r"decode_head\.conv_seg\.(weight|bias)",
}
_AUXILIARY = {"dnlnet": r"head\.aux\..+", "dmnet": r"fcn_head\..+"}


# Settings that the model needs to compute the same function with the weights of a source.
_SETTINGS = {
    "mmseg": {"dialect": "mmseg", "stem": "v1c"},
    "official_dnl": {"dialect": "official", "stem": "3x3"},
    "paddleseg": {"dialect": "paddleseg", "stem": "vd"},
    "dmnet_paddle": {"stem": "vd"},
    "torchvision": {"stem": "v1"},
    "timm": {"stem": "vd"},
}


def _prefixed(rules: list[Rule]) -> list[Rule]:
    """Rules for keys of a backbone, as rules for keys of the whole model."""

    def moved(rule: Rule):
        return None if rule.target is None else lambda match: f"backbone.{rule.apply(match[1])}"

    return [Rule(rf"backbone\.({r.pattern})", moved(r), r.reason, r.transpose) for r in rules]


def _plan(source: str, family: str, part: str, keys, skip_classifier: bool, skip_auxiliary: bool) -> Plan:
    try:
        backbone, head = _RULES[(source, family)]
    except KeyError:
        possible = ", ".join(s for s, f in _RULES if f == family)
        raise ConversionError(
            f"{source} has no {family} weights; for this model the source can be: {possible}"
        ) from None
    if head is None:
        return Plan(source, part, tuple(backbone(keys)))
    keep, optional = {}, {}
    if family in _AUXILIARY:
        optional[_AUXILIARY[family]] = "this model is built without an auxiliary head"
        if skip_auxiliary:
            keep[_AUXILIARY[family]] = "auxiliary head skipped as asked"
    if skip_classifier:
        keep[_CLASSIFIER[family]] = "classifier skipped as asked"
    zero = mmseg.DMNET_ZERO if (source, family) == ("mmseg", "dmnet") else ()
    return Plan(source, part, (*_prefixed(backbone(keys)), *head()), zero, keep, optional)


def backbone_only(state: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The backbone tensors of a segmentor file without prefix, and the others -> why they are dropped."""
    if not any(key.startswith("backbone.") for key in state):
        return dict(state), {}
    inside = {key[len("backbone.") :]: value for key, value in state.items() if key.startswith("backbone.")}
    return inside, {key: "not part of the backbone" for key in state if not key.startswith("backbone.")}


def convert_with_report(
    state: Mapping[str, np.ndarray],
    source: str,
    model,
    *,
    part: str = "model",
    skip_classifier: bool = False,
    skip_auxiliary: bool = False,
    keep: Mapping[str, str] | None = None,
) -> tuple[dict[str, np.ndarray], ConversionReport]:
    """Converts weights like `convert_state_dict`, and reports on each tensor.

    Args:
        state: names and arrays of the file; a common `module.` prefix is ignored.
        source: one of `SOURCES`.
        model: the Paddle layer that the weights are for.
        part: `model`, or `backbone` for ImageNet files and for the backbone of a segmentor; the result
            then has the keys of `model.backbone` (or of `model`, if that is a backbone), which is what
            the configuration key `model.backbone.pretrained` expects.
        skip_classifier: keep the model's own layers whose width is the number of classes.
        skip_auxiliary: keep the model's own auxiliary head.
        keep: regular expressions of further model keys to keep -> reason.

    Raises:
        ConversionError: file and model do not correspond; the message names the first tensors and says
            what both look like.
    """
    if source not in SOURCES:
        raise ConversionError(f"unknown source {source!r}; choose from {', '.join(SOURCES)}")
    if part not in ("model", "backbone"):
        raise ConversionError(f"unknown part {part!r}; choose model or backbone")
    state = strip_module(state)
    if part == "backbone" and hasattr(model, "backbone"):
        model = model.backbone
    own = {key: np.asarray(value.numpy()) for key, value in model.state_dict().items()}
    family = next((family for family, key in _FAMILIES.items() if key in own), None)
    if family is None:
        raise ConversionError(
            f"no converter for this model: it looks like {looks_like(own)}; DNLNet, DMNet and DGMN2 have one"
        )
    if part == "model" and family.endswith("backbone"):
        part = "backbone"
    relevant, outside = backbone_only(state) if part == "backbone" else (state, {})
    plan = _plan(source, family, part, relevant, skip_classifier, skip_auxiliary)
    plan = replace(plan, keep={**plan.keep, **(keep or {})})
    try:
        result, report = carry_over(relevant, own, plan)
    except ConversionError as error:
        raise ConversionError(
            f"{error}. The file looks like: {looks_like(state)}; the model is: {looks_like(own)}."
            f"{_advice(relevant, own, plan, family, skip_classifier, skip_auxiliary)}"
        ) from None
    report.dropped.update(outside)
    # With other settings the weights fit, but the model computes another function.
    for key, layer in (("dialect", model), ("stem", getattr(model, "backbone", model))):
        present, needed = getattr(layer, key, None), _SETTINGS.get(source, {}).get(key)
        if present is not None and needed is not None and present != needed:
            report.warnings.append(
                f"{key}: the weights of {source} are for '{needed}', this model has '{present}' and computes something else"
            )
    for warning in report.warnings:
        logger.warning("%s", warning)
    return result, report


def _advice(state, own, plan: Plan, family: str, skip_classifier: bool, skip_auxiliary: bool) -> str:
    """Advice: the option with which the conversion would succeed, if there is one."""
    trials = [("skip_classifier", True, skip_auxiliary), ("skip_auxiliary", skip_classifier, True)]
    for name, classifier, auxiliary in trials:
        if family in _CLASSIFIER and (classifier, auxiliary) != (skip_classifier, skip_auxiliary):
            try:
                carry_over(state, own, _plan(plan.source, family, plan.part, state, classifier, auxiliary))
            except ConversionError:
                continue
            what = "its classes" if name == "skip_classifier" else "its auxiliary head"
            return f" All but {what} would fit: give {name} (--{name}) to keep the model's own there."
    return " Check the source and whether the configuration has the file's depth, decoder and classes."


def convert_state_dict(
    state: Mapping[str, np.ndarray],
    source: str,
    model,
    *,
    skip_classifier: bool = False,
    skip_auxiliary: bool = False,
) -> dict[str, np.ndarray]:
    """Converts weights of another project to the names and layout of our model.

    Neither `state` nor `model` is changed. Every tensor of the file is used once or dropped for a stated
    reason, and every tensor of the model gets a value (see `convert_with_report`). Logs a warning if the model has another
    `dialect` or `stem` and would compute another function.

    Args:
        state: names and arrays of the file.
        source: one of `SOURCES`.
        model: the Paddle layer that the weights are for; all its keys must get a value of their shape.
        skip_classifier: keep the model's own layers whose width is the number of classes.
        skip_auxiliary: keep the model's own auxiliary head.

    Raises:
        ConversionError: file and model do not correspond.
    """
    options = {"skip_classifier": skip_classifier, "skip_auxiliary": skip_auxiliary}
    return convert_with_report(state, source, model, **options)[0]
