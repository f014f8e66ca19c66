# SPDX-License-Identifier: Apache-2.0
"""Start weights of a backbone from any file that is at hand: read, recognised, converted, and accounted for."""

import re
from collections.abc import Mapping
from pathlib import Path

from paddle_dnl.errors import CheckpointError
from paddle_dnl.log import logger
from paddle_dnl.weights.convert import (
    ConversionError,
    ConversionReport,
    Recognised,
    backbone_only,
    convert_with_report,
    looks_like,
    read_torch_weights,
    recognise,
    strip_module,
)
from paddle_dnl.weights.loading import NAME_TABLE, load_weights, read_params

import numpy as np
import paddle

PADDLE_FILES = (".pdparams", ".safetensors")
_FIRST_CONVOLUTIONS = ("conv1_1._conv.weight", "patch_embed1.conv1.weight")  # of our ResNet and DGMN2


class Misfit(CheckpointError):
    """A file of start weights for another backbone.

    Args:
        text: the message.
        backbone: arguments of `model.backbone` that the file fits, as far as they are known.
    """

    def __init__(self, text: str, backbone: dict[str, str]):
        super().__init__(text)
        self.backbone = backbone


def read_any(path: str | Path) -> dict[str, np.ndarray]:
    """Tensors of a .pdparams, .safetensors or (any other ending) PyTorch file, without running code from it.

    Raises:
        CheckpointError: missing, damaged, hostile, or not a mapping of tensors.
    """
    path = Path(path)
    if path.suffix not in PADDLE_FILES:
        return read_torch_weights(path)
    return {key: value for key, value in read_params(path).items() if key != NAME_TABLE}


def load_backbone(backbone: paddle.nn.Layer, path: str | Path, what: str) -> None:
    """Puts the start weights of a file into a backbone and logs which tensors were taken and which were left.

    Our ResNet and DGMN2 take the files of every project in `convert.SOURCES`, of an ImageNet classifier or of a
    whole segmentor; each of their tensors must get a value, except that a first convolution for another number of image
    channels stays random. A backbone of paddleseg takes files with its own names, as far as shapes fit.

    Args:
        backbone: receives the weights.
        path: see `read_any`.
        what: how the file is called in messages, for instance `--pretrained`.

    Raises:
        CheckpointError: unreadable; another depth, stem or family; fewer than half of the backbone's tensors.
    """
    own = backbone.state_dict()
    first = next((key for key in _FIRST_CONVOLUTIONS if key in own), None)
    if first is None:
        load_partly(backbone, path, what)
        return
    inside, outside = backbone_only(strip_module(read_any(path)))
    found = recognise(inside)
    if found is None:
        raise CheckpointError(
            f"{what} {path}: {len(inside)} tensors, none of a backbone known here; it looks like "
            f"{looks_like({**inside, **outside})}, the model has {looks_like(own)}"
        )
    stem = getattr(backbone, "stem", None)
    if found.stem is not None and stem is not None and found.stem != stem:
        raise Misfit(
            f"{what} {path}: {len(inside)} tensors of {looks_like(inside)} ({found.source}) with stem {found.stem}; this "
            f"model has {looks_like(own)} with stem {stem} and would compute something else with them",
            _fitting(inside, found),
        )
    converted, report = _convert(inside, found, backbone, first, f"{what} {path}")
    load_weights(backbone, converted, what=f"{what} {path}")
    report.dropped.update(dict.fromkeys(outside, "not part of the backbone"))
    logger.info(f"{what} {path}: {looks_like(inside)} of {found.source}; {_account(report)}")


def _convert(
    state: Mapping[str, np.ndarray], found: Recognised, backbone, first: str, name: str
) -> tuple[dict[str, np.ndarray], ConversionReport]:
    """The conversion, with a random first convolution where the image has another number of channels."""
    try:
        return convert_with_report(state, found.source, backbone, part="backbone")
    except ConversionError as error:
        channels = backbone.state_dict()[first].shape[1]
        if channels != 3:
            reason = f"stays random: the model's images have {channels} channels"
            try:
                return convert_with_report(state, found.source, backbone, part="backbone", keep={first: reason})
            except ConversionError:
                pass
        raise Misfit(f"{name}: {error}", _fitting(state, found)) from None


def _fitting(state: Mapping[str, np.ndarray], found: Recognised) -> dict[str, str]:
    """Type and stem of the backbone that the file is of."""
    match = re.search(r"ResNet-(\d+)|DGMN2-(\w+)", looks_like(state))
    if match is None:
        return {}
    if match[2]:
        return {"type": f"DGMN2_{match[2]}"}
    return {"type": f"ResNet{match[1]}"} | ({"stem": found.stem} if found.stem else {})


def _account(report: ConversionReport) -> str:
    """Counts of the tensors taken, and of those left with the reason."""
    parts = [f"{len(report.mapped)} tensors taken"]
    reasons = list(report.dropped.values())
    parts += [f"{reasons.count(reason)} left ({reason})" for reason in dict.fromkeys(reasons)]
    parts += [f"{key} {reason}" for key, reason in report.kept.items()]
    return ", ".join(parts)


def load_partly(model: paddle.nn.Layer, path: str | Path, what: str) -> None:
    """Loads the tensors whose names and shapes fit, and warns of the others.

    Raises:
        CheckpointError: unreadable, or fewer than half of the model's tensors fit.
    """
    if Path(path).suffix not in PADDLE_FILES:
        raise CheckpointError(
            f"{what} {path}: expected {' or '.join(PADDLE_FILES)}; tools/convert_weights.py converts files of PyTorch"
        )
    state = read_any(path)
    own = model.state_dict()
    fitting = sum(key in own and tuple(np.shape(value)) == tuple(own[key].shape) for key, value in state.items())
    if 2 * fitting < len(own):
        raise CheckpointError(
            f"{what} {path}: only {fitting} of the model's {len(own)} tensors are in it with their shapes; it looks like "
            f"{looks_like(state)}, the model like {looks_like(own)}"
        )
    load_weights(model, state, strict=False, what=f"{what} {path}")
