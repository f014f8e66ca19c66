# SPDX-License-Identifier: Apache-2.0
"""Renames weights by rules; every tensor is accounted for.

A source (one module per project) lists `Rule`s: which module of the file becomes which module of the
model, and whether its matrix is transposed. Shapes are never used to decide, since some square matrices must be
transposed (DGMN2's projections) and others must not (its position tables).
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from paddle_dnl.errors import CheckpointError
from paddle_dnl.weights.convert.rules import Rule

import numpy as np

# PyTorch's names of batch-norm statistics and Paddle's.
_STATISTICS = {"running_mean": "_mean", "running_var": "_variance"}
_PADDLE_NAME_TABLE = "StructuredToParameterName@@"


class ConversionError(CheckpointError):
    """The tensors of a file and of a model do not correspond one to one."""


@dataclass
class ConversionReport:
    """Use of each tensor of the file, and origin of each tensor of the model."""

    source: str
    part: str
    mapped: list[dict] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict:
        """Plain containers for JSON, with the counts in front."""
        counts = {name: len(getattr(self, name)) for name in ("mapped", "dropped", "filled", "kept")}
        return {"counts": counts, **asdict(self)}

    def __str__(self) -> str:
        text = f"{len(self.mapped)} tensors converted, {len(self.dropped)} dropped"
        for name, what in (("filled", "set to zero"), ("kept", "left as the model has them")):
            if count := len(getattr(self, name)):
                text += f", {count} {what}"
        return text


@dataclass(frozen=True)
class Plan:
    """Rules and options of a conversion.

    Args:
        source: name of the project the file is from.
        part: `model` or `backbone`.
        rules: the first rule that matches decides.
        zero: regular expressions of model keys that the file cannot hold and that are zero by definition.
        keep: regular expression of model keys that keep the model's own value -> reason; the file's
            tensors for them are dropped.
        optional: regular expression of model keys -> reason; if the model has none of them, the file's
            are dropped.
    """

    source: str
    part: str
    rules: tuple[Rule, ...]
    zero: tuple[str, ...] = ()
    keep: Mapping[str, str] = field(default_factory=dict)
    optional: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Problems:
    unplaced: list[str] = field(default_factory=list)
    mis_shaped: list[tuple[str, str, tuple, tuple]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    not_numbers: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(vars(self).values())


def strip_module(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Removes the `module.` with which PyTorch's parallel wrappers prefix every key."""
    if state and all(key.startswith("module.") for key in state):
        return strip_module({key[len("module.") :]: value for key, value in state.items()})
    return dict(state)


def _place(key: str, plan: Plan) -> tuple[str | None, Rule | None]:
    """The model key for a key of the file, and the rule that matched."""
    path, _, leaf = key.rpartition(".")
    for rule in plan.rules:
        target = rule.apply(path)
        if target is not None:
            return ".".join(filter(None, (target, _STATISTICS.get(leaf, leaf)))), rule
    return None, None


def _reason_to_drop(key: str, target: str | None, rule: Rule | None, plan: Plan, own: Mapping) -> str:
    """Why a tensor of the file is dropped; empty if it is not."""
    if key.rpartition(".")[2] == "num_batches_tracked":
        return "a counter of training steps that batch normalisation in inference does not use"
    if key == _PADDLE_NAME_TABLE:
        return "Paddle's table of parameter names, not a tensor"
    if rule is not None and rule.target is None:
        return rule.reason
    for pattern, reason in plan.keep.items():
        if target and re.fullmatch(pattern, target):
            return reason
    for pattern, reason in plan.optional.items():
        if target and re.fullmatch(pattern, target) and not any(re.fullmatch(pattern, k) for k in own):
            return reason
    return ""


def _as_target(value: np.ndarray, like: np.ndarray) -> np.ndarray:
    # A contiguous copy in the model's precision, since the file may be memory-mapped.
    return np.array(value, dtype=like.dtype, order="C")


def carry_over(
    state: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray], plan: Plan
) -> tuple[dict[str, np.ndarray], ConversionReport]:
    """Renames and transposes `state` to the tensors of the model.

    Args:
        state: the file's tensors.
        own: the model's tensors, which define names, shapes and precision.
        plan: the rules.

    Returns:
        A value for each key of `own`, in that order, and the report.

    Raises:
        ConversionError: a tensor of the file without a target, a key of the model without a value, two values
            for one key, another shape, or NaN.
    """
    report, problems, found = ConversionReport(plan.source, plan.part), _Problems(), {}
    for key, value in state.items():
        target, rule = _place(key, plan)
        reason = _reason_to_drop(key, target, rule, plan, own)
        if reason:
            report.dropped[key] = reason
        elif target is None or target not in own:
            problems.unplaced.append(key if target is None else f"{key} (would be {target})")
        elif target in found:
            problems.twice.append(f"{key} -> {target}")
        elif not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
            problems.not_numbers.append(f"{key} is {getattr(value, 'dtype', type(value).__name__)}")
        else:
            moved = value.T if rule.transpose and key.endswith(".weight") else value
            found[target] = moved
            if moved.shape != own[target].shape:
                problems.mis_shaped.append((key, target, moved.shape, own[target].shape))
            elif not np.isfinite(moved).all():
                problems.not_numbers.append(f"{key} holds NaN or infinity")
            how = "transposed" if moved is not value else "as is"
            report.mapped.append({"from": key, "to": target, "shape": list(own[target].shape), "how": how})
    result = _complete(found, own, plan, report, problems)
    if problems:
        raise ConversionError(_explain(problems, plan, len(found)))
    return result, report


def _complete(found, own, plan: Plan, report: ConversionReport, problems: _Problems) -> dict[str, np.ndarray]:
    """Adds kept and zero tensors; records the remaining keys as missing."""
    result = {}
    for key, present in own.items():
        reason = next((why for pattern, why in plan.keep.items() if re.fullmatch(pattern, key)), None)
        if key in found:
            result[key] = _as_target(found[key], present)
        elif reason:
            result[key] = _as_target(present, present)
            report.kept[key] = reason
        elif any(re.fullmatch(pattern, key) for pattern in plan.zero):
            result[key] = np.zeros_like(present)
            report.filled[key] = f"{plan.source} has no bias here, which is a bias of zero"
        else:
            problems.missing.append(key)
    return result


def _list(items: list[str]) -> str:
    return ", ".join(items[:4]) + (f", ... ({len(items)} in all)" if len(items) > 4 else "")


def _explain(problems: _Problems, plan: Plan, fitting: int) -> str:
    parts = []
    if problems.unplaced:
        parts.append(f"tensors without a place in the model: {_list(problems.unplaced)}")
    if problems.missing:
        parts.append(f"tensors of the model that the file does not give: {_list(problems.missing)}")
    if problems.mis_shaped:
        shapes = [f"{a} -> {b} is {list(s)}, the model wants {list(t)}" for a, b, s, t in problems.mis_shaped]
        parts.append(f"other shapes: {_list(shapes)}")
    if problems.twice:
        parts.append(f"two tensors for one place: {_list(problems.twice)}")
    if problems.not_numbers:
        parts.append(f"not usable numbers: {_list(problems.not_numbers)}")
    start = f"as {plan.source} weights ({plan.part}) this does not fit, {fitting} tensors found a place; "
    return start + "; ".join(parts)
