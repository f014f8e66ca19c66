# SPDX-License-Identifier: Apache-2.0
"""Start weights of a training: which a recipe requires, loading them from any file that is at hand, advice when they do not fit.

Files are read, recognised and converted; each of their tensors is accounted for.
"""

import functools
import re
from collections.abc import Mapping
from pathlib import Path

from paddle_dnl.compat import construction
from paddle_dnl.config.lookup import zoo_configs
from paddle_dnl.config.reading import read_config
from paddle_dnl.errors import CheckpointError, ConfigError
from paddle_dnl.log import logger
from paddle_dnl.weights.convert.converter import backbone_only, convert_with_report
from paddle_dnl.weights.convert.describe import looks_like
from paddle_dnl.weights.convert.mapping import ConversionError, ConversionReport, strip_module
from paddle_dnl.weights.convert.recognise import Recognised, recognise
from paddle_dnl.weights.convert.torch_files import read_torch_weights
from paddle_dnl.weights.downloads import is_url, resolve_pretrained
from paddle_dnl.weights.loading import NAME_TABLE, load_weights, read_params

import numpy as np
import paddle

PADDLE_FILES = (".pdparams", ".safetensors")
_FIRST_CONVOLUTIONS = ("conv1_1._conv.weight", "patch_embed1.conv1.weight")  # of our ResNet and DGMN2


def require_start_weights(config) -> None:
    """Refuses a training that would begin otherwise than its recipe does, before data are looked at.

    A recipe's `start_weights` names the file that it begins with. It is satisfied by `model.backbone.pretrained` (or
    `model.pretrained`) and waived by giving that key the value null: `--from_scratch` does so.

    Args:
        config: a `paddle_dnl.config.Config`.

    Raises:
        ConfigError: nothing was given; one line with the file, where it comes from, and the commands.
        CheckpointError: a local file was given that is not there.
    """
    sections = {"model": config.model_cfg, "model.backbone": config.model_cfg.get("backbone") or {}}
    given = {f"{name}.pretrained": cfg["pretrained"] for name, cfg in sections.items() if "pretrained" in cfg}
    for key, path in given.items():
        if path is not None and not is_url(path) and not Path(path).is_file():
            raise CheckpointError(f"{key} {path}: no such file")
    wanted = config.dic.get("start_weights")
    if wanted is not None and not given:
        file, stem = wanted["file"], Path(wanted["file"]).stem
        raise ConfigError(
            f"{config.path}: this recipe begins with the weights {file} ({wanted['from']}): give them with --pretrained "
            f"{file}, which converts them, or convert them once with `paddle-dnl convert --source "
            f"{wanted['source']} --part backbone --config {config.path} --input {file} --output {stem}.safetensors`; "
            "--from_scratch trains from random weights on purpose"
        )


def fetch_start_weights(config) -> dict:
    """The `model` section with local files in place of the addresses of start weights.

    Raises:
        ConfigError, CheckpointError: see `require_start_weights`.
        DownloadError: one cannot be fetched.
    """
    require_start_weights(config)
    return resolve_pretrained(config.model_cfg, config.dic.get("pretrained_sha256"))


def load_start_weights(model: paddle.nn.Layer, model_cfg: dict) -> None:
    """Loads what `model.backbone.pretrained` and `model.pretrained` name, and says what was taken and what was left.

    Args:
        model: as from `build_model`.
        model_cfg: the `model` section with local paths in place of URLs.

    Raises:
        CheckpointError: an unreadable file, or one of another model.
    """
    path, what = (model_cfg.get("backbone") or {}).get("pretrained"), "model.backbone.pretrained"
    if path and construction.requires_file(model.backbone):
        load = functools.partial(load_partly, what=what)
        construction.read_into(model.backbone, path, read_params, load)
    elif path:
        try:
            load_backbone(model.backbone, path, what)
        except Misfit as error:
            raise CheckpointError(f"{str(error).rstrip('.')}{_nearest(model_cfg, error.backbone)}") from None
    if model_cfg.get("pretrained"):
        load_partly(model, model_cfg["pretrained"], "model.pretrained")
    elif path is None and "pretrained" in {**model_cfg, **(model_cfg.get("backbone") or {})}:
        logger.info("training from scratch: no start weights")


def _nearest(model_cfg: dict, backbone: dict[str, str]) -> str:
    """Advice: the published configuration most like this one among those with the backbone that a file of weights is of.

    Where no configuration has that backbone, the overrides that choose it.
    """
    if not backbone:
        return ""
    overrides = " ".join(f"model.backbone.{key}={value}" for key, value in backbone.items())
    fitting = {}
    for path in zoo_configs().values():
        section = read_config(path).get("model") or {}
        other = dict(section.get("backbone") or {})
        if other.get("type", "").endswith("_vd"):
            other |= {"type": other["type"].removesuffix("_vd"), "stem": "vd"}
        if backbone.items() <= other.items():
            alike = sum(section.get(key) == value for key, value in model_cfg.items() if key != "backbone")
            fitting[path.stem] = (section.get("type") == model_cfg["type"], alike)
    if not fitting:
        return f". It fits --opts {overrides}"
    best = max(fitting, key=fitting.get)
    return f". It fits {best}" + (f", or any configuration with --opts {overrides}" if fitting[best][0] else "")


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
    whole segmentor; each of their tensors must get a value. The first convolution for another number of image channels is
    made from that for colours (`adapt_channels`). A backbone of paddleseg takes files with its own names, as far as shapes fit.

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
    if (found.source == "dgmn2") != (first == _FIRST_CONVOLUTIONS[1]):
        raise Misfit(
            f"{what} {path}: {len(inside)} tensors of {looks_like(inside)} ({found.source}), none of which fits; this model "
            f"has {looks_like(own)}",
            _fitting(inside, found),
        )
    stem = getattr(backbone, "stem", None)
    if found.stem is not None and stem is not None and found.stem != stem:
        raise Misfit(
            f"{what} {path}: {len(inside)} tensors of {looks_like(inside)} ({found.source}) with stem {found.stem}; this "
            f"model has {looks_like(own)} with stem {stem} and would compute something else with them",
            _fitting(inside, found),
        )
    name, channels = f"{what} {path}", own[first].shape[1]
    colours = sorted(key for key, value in inside.items() if channels != 3 and _takes_colours(value))
    adapted = {key: adapt_channels(inside[key], channels) for key in colours}
    converted, report = _convert({**inside, **adapted}, found, backbone, name)
    load_weights(backbone, converted, what=f"{what} {path}")
    report.dropped.update(dict.fromkeys(outside, "not part of the backbone"))
    reasons = list(report.dropped.values())
    account = [f"{len(report.mapped)} tensors taken"]
    account += [f"{reasons.count(reason)} left ({reason})" for reason in dict.fromkeys(reasons)]
    account += [f"{key} {reason}" for key, reason in report.kept.items()]
    logger.info(f"{name}: {looks_like(inside)} of {found.source}; {', '.join(account)}")
    if colours:
        _say_adapted(name, colours, channels)


def _takes_colours(value: np.ndarray) -> bool:
    """Whether a tensor is a convolution of three channels: in our backbones and their sources only the first one is."""
    return np.ndim(value) == 4 and np.shape(value)[1] == 3


def adapt_channels(weight: np.ndarray, channels: int) -> np.ndarray:
    """A first convolution `[O, 3, k, k]` for red, green and blue, for images of another number of channels.

    One channel: the sum over the three, so that a grey picture gives what it gave as three equal channels. Others: the
    weights of red, green and blue in turn, times 3 / channels, which keeps the size of the output (timm's rule,
    `timm.models.adapt_input_conv`).
    """
    weight = np.asarray(weight)
    if channels == 1:
        return weight.sum(axis=1, keepdims=True)
    repeated = np.concatenate([weight] * -(-channels // 3), axis=1)[:, :channels]
    return repeated * weight.dtype.type(3 / channels)


def _say_adapted(name: str, keys: list[str], channels: int) -> None:
    rule = "their sum" if channels == 1 else f"these in turn, times 3/{channels}"
    logger.info(f"{name}: {', '.join(keys)}: made for {channels} channels from red, green and blue: {rule}")


def _convert(
    state: Mapping[str, np.ndarray], found: Recognised, backbone, name: str
) -> tuple[dict[str, np.ndarray], ConversionReport]:
    """`convert_with_report`, with the file's name and what would fit in its error."""
    try:
        return convert_with_report(state, found.source, backbone, part="backbone")
    except ConversionError as error:
        raise Misfit(f"{name}: {error}", _fitting(state, found)) from None


def _fitting(state: Mapping[str, np.ndarray], found: Recognised) -> dict[str, str]:
    """Type and stem of the backbone that the file is of."""
    match = re.search(r"ResNet-(\d+)|DGMN2-(\w+)", looks_like(state))
    if match is None:
        return {}
    if match[2]:
        return {"type": f"DGMN2_{match[2]}"}
    return {"type": f"ResNet{match[1]}"} | ({"stem": found.stem} if found.stem else {})


def load_partly(model: paddle.nn.Layer, path: str | Path, what: str) -> None:
    """Loads the tensors whose names and shapes fit, and warns of the others; a first convolution is adapted to the image's
    channels (`adapt_channels`).

    Raises:
        CheckpointError: unreadable, or fewer than half of the model's tensors fit.
    """
    if Path(path).suffix not in PADDLE_FILES:
        raise CheckpointError(
            f"{what} {path}: expected {' or '.join(PADDLE_FILES)}; tools/convert_weights.py converts files of PyTorch"
        )
    state = read_any(path)
    own = model.state_dict()
    for key in [key for key in state if key in own and _takes_colours(state[key])]:
        shape = tuple(own[key].shape)
        if (
            shape != np.shape(state[key])
            and shape[:1] + shape[2:] == np.shape(state[key])[:1] + np.shape(state[key])[2:]
        ):
            state[key] = adapt_channels(state[key], shape[1])
            _say_adapted(f"{what} {path}", [key], shape[1])
    _keep_classifiers(state, own, f"{what} {path}")
    fitting = sum(key in own and tuple(np.shape(value)) == tuple(own[key].shape) for key, value in state.items())
    if 2 * fitting < len(own):
        raise CheckpointError(
            f"{what} {path}: only {fitting} of the model's {len(own)} tensors are in it with their shapes; it looks like "
            f"{looks_like(state)}, the model like {looks_like(own)}"
        )
    load_weights(model, state, strict=False, what=f"{what} {path}")


def _keep_classifiers(state: dict[str, np.ndarray], own: Mapping[str, paddle.Tensor], name: str) -> None:
    """Layers of a trained model that differ in the number of classes alone keep the model's own values, which `state` gets.

    Such tensors differ along one axis, all of them from one number to one other.
    """
    changes: dict[tuple[int, int], list[str]] = {}
    for key in (key for key in state if key in own):
        old, new = np.shape(state[key]), tuple(own[key].shape)
        sides = [i for i in range(len(new)) if len(old) == len(new) and old[i] != new[i]]
        if len(sides) == 1:
            changes.setdefault((old[sides[0]], new[sides[0]]), []).append(key)
    if len(changes) != 1:
        return
    ((before, now), keys) = changes.popitem()
    for key in keys:
        state[key] = own[key].numpy()
    taken = sum(key in own for key in state) - len(keys)
    logger.info(
        f"{name}: {taken} tensors taken; for {now} classes in place of {before} these are initialised anew: "
        f"{', '.join(sorted(keys))}"
    )
