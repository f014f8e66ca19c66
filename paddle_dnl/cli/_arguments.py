# SPDX-License-Identifier: Apache-2.0
"""Flags that several programs share, with PaddleSeg's names and meanings."""

import argparse
import re

from paddle_dnl.config.choices import AVERAGES
from paddle_dnl.errors import UsageError
from paddle_dnl.log import logger

DEVICES = ("cpu", "gpu", "xpu", "npu", "mlu")
# Flags of predict.py and infer.py, as keywords of `add_argument`.
SAVE_PROB = {
    "nargs": "?",
    "const": "float16",
    "choices": ("float16", "uint8"),
    "help": "also probabilities/NAME.npz with probabilities [K, h, w]; uint8 holds them times 255",
}
VALUE_RANGE = {
    "nargs": 2,
    "type": float,
    "metavar": ("LO", "HI"),
    "help": "numbers of the picture files that become black and white; default: the dataset's or deploy.yaml's",
}


def true_or_false(text: str) -> bool:
    """`True`, `true`, `1` and their opposites, as scripts pass them."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"expected True or False, got {text!r}")
    return values[text.lower()]


def width_and_height(text: str) -> tuple[int, int]:
    """`512x256` as two positive numbers."""
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 1024x512, got {text!r}")
    return int(found[1]), int(found[2])


def add_switch(parser: argparse.ArgumentParser, name: str, default: bool | None, help: str) -> None:
    """A flag in both of PaddleSeg's forms, `--flag` and `--flag True`, as scripts and TIPC type them."""
    parser.add_argument(
        name, type=true_or_false, nargs="?", const=True, default=default, metavar="True|False", help=help
    )


def add_renamed(parser: argparse.ArgumentParser, name: str, former: str, **options) -> None:
    """A flag that is also read under its former name, which --help does not show."""
    parser.add_argument(name, **options)
    hidden = {"dest": name.lstrip("-"), "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    parser.add_argument(former, **options | hidden)


def add_backend(parser: argparse.ArgumentParser, default: str | None, help: str) -> None:
    """--backend, what runs an exported model."""
    add_renamed(
        parser,
        "--backend",
        "--engine",
        choices=("paddle", "onnxruntime", "openvino", "auto"),
        default=default,
        help=help,
    )


def require_at_least(args: argparse.Namespace, least: int, *names: str) -> None:
    """Refuses numbers below `least`, also in lists; flags that were not given are passed over.

    Raises:
        UsageError: names the flag.
    """
    for name in names:
        given = getattr(args, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and value < least:
                raise UsageError(f"--{name} must be at least {least}, got {value}")


def add_shares(parser: argparse.ArgumentParser) -> None:
    """Flags of predict.py and infer.py for many pictures and several processes."""
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="only images I, I+N, I+2N, ...; default: the rank under paddle.distributed.launch, or the task of a SLURM array",
    )
    parser.add_argument("--skip_existing", action="store_true", help="leave out images whose results are there")
    parser.add_argument(
        "--skip_bad_samples", action="store_true", help="go on without images that cannot be read; names them"
    )
    parser.add_argument("--no_overlay", action="store_true", help="write no added_prediction")


def add_multilabel(parser: argparse.ArgumentParser) -> None:
    """--use_multilabel, of PaddleSeg's programs."""
    text = "several classes may hold for one pixel: labels are masks side by side, classes are predicted one by one"
    parser.add_argument("--use_multilabel", action="store_true", help=text)


def add_config(parser: argparse.ArgumentParser, help: str = "YAML configuration", **options) -> None:
    """--config, --opts, --custom_imports and --trust_config, of programs that read a configuration with `make_config`.

    Args:
        help: what the configuration is for.
        options: further arguments of `add_argument` for --config.
    """
    options.setdefault("required", True)
    text = f"{help}: a file, or a name that `paddle-dnl configs` lists"
    parser.add_argument("--config", help=text, **options).completer = _complete_config
    add_overrides(parser)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """--opts, --custom_imports and --trust_config, of programs whose configuration is a positional argument."""
    parser.add_argument("--opts", nargs="+", metavar="KEY=VALUE", help="replace values of the configuration")
    parser.add_argument(
        "--custom_imports", nargs="+", metavar="MODULE", help="your .py files and modules, which register components"
    )
    parser.add_argument("--trust_config", action="store_true", help="import also what the configuration's key names")


def add_export_imports(parser: argparse.ArgumentParser) -> None:
    """--custom_imports of programs that run an exported folder; `user_code.import_for_export` follows it."""
    text = "your .py files and modules with transforms of the model"
    parser.add_argument("--custom_imports", nargs="+", default=[], metavar="MODULE", help=text)


def make_config(args: argparse.Namespace, path=None, **replacements):
    """The `Config` that the flags of `add_config` describe.

    Args:
        path: in place of `--config`.
        replacements: further arguments of `Config`.

    Raises:
        ConfigError: see `Config`.
    """
    from paddle_dnl.config.config import Config

    return Config(
        path or args.config,
        opts=args.opts,
        custom_imports=args.custom_imports,
        trust_config=args.trust_config,
        **replacements,
    )


def _complete_config(prefix: str, **_) -> list[str]:
    """For argcomplete: names of the model zoo and YAML files."""
    from paddle_dnl.config.lookup import zoo_configs

    from argcomplete.completers import FilesCompleter

    return [name for name in zoo_configs() if name.startswith(prefix)] + list(FilesCompleter(("yml", "yaml"))(prefix))


def add_common(parser: argparse.ArgumentParser, precisions: tuple[str, ...] = ("fp32", "fp16", "bf16")) -> None:
    """--config, --opts, --device, --precision, --amp_level, --data_format."""
    add_config(parser)
    parser.add_argument("--device", choices=DEVICES, help="default: gpu when Paddle has one, else cpu")
    parser.add_argument("--precision", choices=precisions, default="fp32")
    parser.add_argument("--amp_level", choices=("O1", "O2"), default="O1")
    parser.add_argument(
        "--data_format",
        choices=("NCHW", "NHWC"),
        default="NCHW",
        help="NHWC: the backbone's half-precision convolutions in channels-last layout, on GPUs with tensor cores; files, inputs "
        "and outputs are the same; not tested on a GPU",
    )


def add_augmented(parser: argparse.ArgumentParser, switch: str) -> None:
    """Sliding windows, several scales, flips. A flag that was not typed is None: `test_config` decides."""
    either = {"action": argparse.BooleanOptionalAction}
    parser.add_argument(f"--{switch}", **either, help="use scales and flips; a typed --scales or flip implies it")
    parser.add_argument("--scales", nargs="+", type=float, help="default: those of test_config, else 1.0")
    parser.add_argument("--flip_horizontal", **either, help="also flipped left to right")
    parser.add_argument("--flip_vertical", **either, help="also flipped upside down")
    parser.add_argument("--is_slide", **either, help="sliding windows of --crop_size every --stride")
    parser.add_argument("--crop_size", nargs=2, type=int, metavar=("W", "H"))
    parser.add_argument("--stride", nargs=2, type=int, metavar=("W", "H"))
    parser.add_argument(
        "--average",
        choices=AVERAGES,
        help="how scales and flips are averaged: PaddleSeg's rule (logits, the default), mmsegmentation's and DGMN2's "
        "(softmax), the DNL authors' (official)",
    )


def add_geotiff(parser: argparse.ArgumentParser) -> None:
    """--geotiff, label maps with the georeference of their pictures."""
    parser.add_argument(
        "--geotiff",
        action="store_true",
        help="of GeoTIFFs: also geotiff/NAME.tif with the picture's transform and reference system",
    )


def select_device(device: str | None) -> str:
    """Makes `device` Paddle's current one; None means a GPU when there is one. Returns its name.

    Raises:
        UsageError: this Paddle or this machine does not have the device.
    """
    import paddle

    has_gpu = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if device is None:
        device = "gpu" if has_gpu else "cpu"
    elif device == "gpu" and not has_gpu:
        why = "no GPU is visible" if paddle.is_compiled_with_cuda() else "this PaddlePaddle is built for CPU only"
        raise UsageError(f"--device gpu: {why}; install paddlepaddle-gpu, or use --device cpu")
    try:
        paddle.set_device(device)
    except Exception as error:
        raise UsageError(f"--device {device}: not available in this PaddlePaddle ({error})") from error
    return device


_TEST_FLAGS = ("scales", "flip_horizontal", "flip_vertical", "is_slide", "crop_size", "stride", "average")
_AUGMENTATIONS = ("scales", "flip_horizontal", "flip_vertical")


def test_settings(args: argparse.Namespace, config, switch: str) -> dict:
    """Arguments of `evaluate` and `predict`: the configuration's `test_config`, replaced by every flag that was typed.

    A typed scale or flip switches augmentation on: PaddleSeg ignores it without the switch and so reports the score of a
    plain evaluation under the name of an augmented one.

    Args:
        args: flags of `add_augmented`; None where a flag was not typed.
        config: a `paddle_dnl.config.Config`.
        switch: `aug_eval` or `aug_pred`, the flag that switches scales and flips.

    Raises:
        UsageError: --is_slide without --crop_size and --stride anywhere, or scales and flips with the switch off.
    """
    settings = config.test_config
    typed = {name: getattr(args, name) for name in _TEST_FLAGS if getattr(args, name) is not None}
    settings |= typed
    wanted = _effective(typed)
    if getattr(args, switch) is not None:
        settings["aug_eval"] = getattr(args, switch)
    elif wanted and not settings.get("aug_eval"):
        settings["aug_eval"] = True
        logger.info(f"--{wanted[0]} implies --{switch}")
    if wanted and not settings["aug_eval"]:
        raise UsageError(f"--no-{switch} contradicts --{wanted[0]}: remove one of them")
    if settings.get("is_slide") and not (settings.get("crop_size") and settings.get("stride")):
        raise UsageError("--is_slide needs --crop_size W H and --stride W H")
    if any(value <= 0 for name in ("crop_size", "stride") for value in settings.get(name) or ()):
        raise UsageError("--crop_size and --stride must be positive")
    if not settings.get("aug_eval"):
        for name in _AUGMENTATIONS:
            settings.pop(name, None)
    elif getattr(args, switch) and not _effective(settings):
        logger.warning(
            f"--{switch} changes nothing: neither flags nor test_config give scales or flips; add for instance "
            "--scales 0.75 1.0 1.25 --flip_horizontal"
        )
    return settings


def _effective(settings: dict) -> list[str]:
    """Names of the scales and flips in `settings` with which an augmented evaluation differs from a plain one."""
    plain = {"scales": (None, 1.0, [1.0])}
    return [name for name in _AUGMENTATIONS if settings.get(name) not in plain.get(name, (None, False))]


def require_model_path(args: argparse.Namespace) -> str:
    """--model_path, which may not be left out: random weights are never evaluated or exported.

    Raises:
        UsageError: it is missing.
    """
    if not args.model_path:
        raise UsageError("--model_path is required: the .pdparams or .safetensors file of trained weights")
    return args.model_path
