# SPDX-License-Identifier: Apache-2.0
"""Flags that several programs share, with PaddleSeg's names and meanings."""

import argparse
import re

from paddle_dnl.config.choices import AVERAGES, LARGEST_SEED
from paddle_dnl.errors import UsageError
from paddle_dnl.log import logger

DEVICES = ("cpu", "gpu", "xpu", "npu", "mlu")
# Choices of programs that run exported models.
BACKENDS = ("paddle", "onnxruntime", "openvino", "auto")
# Keyword arguments of `add_argument` for flags of predict.py and infer.py.
SAVE_PROB = {
    "nargs": "?",
    "const": "float16",
    "choices": ("float16", "uint8"),
    "help": "also write probabilities/NAME.npz with probabilities [K, H, W]; uint8 stores round(255 * p)",
}
VALUE_RANGE = {
    "nargs": 2,
    "type": float,
    "metavar": ("LO", "HI"),
    "help": "pixel values that are mapped to black and white; default: from the dataset or deploy.yaml",
}


def true_or_false(text: str) -> bool:
    """Parses `True`, `true`, `1`, `yes` and their opposites, as scripts pass them."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"expected True or False, got {text!r}")
    return values[text.lower()]


def width_and_height(text: str) -> tuple[int, int]:
    """Parses `512x256` into two positive numbers."""
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 1024x512, got {text!r}")
    return int(found[1]), int(found[2])


def seed(text: str) -> int:
    """Parses the value of --seed."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {LARGEST_SEED}, got {text!r}")
    return value


def add_switch(parser: argparse.ArgumentParser, name: str, default: bool | None, help: str) -> None:
    """Adds a flag in both of PaddleSeg's forms, `--flag` and `--flag True`, which scripts and TIPC use."""
    parser.add_argument(
        name, type=true_or_false, nargs="?", const=True, default=default, metavar="True|False", help=help
    )


def add_renamed(parser: argparse.ArgumentParser, name: str, former: str, **options) -> None:
    """Adds a flag that is also accepted under its deprecated name, which --help does not show."""
    parser.add_argument(name, **options)
    hidden = {"dest": name.lstrip("-"), "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    parser.add_argument(former, **options | hidden)


def add_backend(parser: argparse.ArgumentParser, default: str | None, help: str) -> None:
    """Adds --backend, which selects the backend of an exported model."""
    add_renamed(parser, "--backend", "--engine", choices=BACKENDS, default=default, help=help)


def add_picture_sizes(parser: argparse.ArgumentParser) -> None:
    """Adds flags that say how an exported model treats pictures of other sizes and scales."""
    parser.add_argument(
        "--wrong_size",
        choices=("resize", "refuse"),
        help="fixed-size models: what to do with images of another size; default: see --tile",
    )
    parser.add_argument(
        "--tile",
        choices=("auto", "never"),
        default="auto",
        help="auto: overlapping tiles for images over 1.5 times the model's size; never: resize all",
    )
    parser.add_argument(
        "--tile_overlap", type=float, default=0.25, help="overlap of neighboring tiles as a share of the tile, 0 to 0.5"
    )
    parser.add_argument(
        "--max_pixels",
        type=int,
        default=80_000_000,
        help="maximum number of pixels of an image, checked before decoding",
    )
    parser.add_argument("--value_range", **VALUE_RANGE)


def require_at_least(args: argparse.Namespace, least: int, *names: str) -> None:
    """Refuses numbers below `least`, also in lists; ignores flags that were not given.

    Raises:
        UsageError: names the flag.
    """
    for name in names:
        given = getattr(args, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and value < least:
                raise UsageError(f"--{name} must be at least {least}, got {value}")


def add_shares(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of predict.py and infer.py for many pictures and several processes."""
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="process images I, I+N, I+2N, ...; default: the rank under paddle.distributed.launch, or the task of a SLURM array",
    )
    parser.add_argument("--skip_existing", action="store_true", help="skip images whose results exist")
    parser.add_argument("--skip_bad_samples", action="store_true", help="skip images that cannot be read, and log them")
    parser.add_argument("--no_overlay", action="store_true", help="do not write added_prediction")


def add_multilabel(parser: argparse.ArgumentParser) -> None:
    """Adds --use_multilabel of PaddleSeg's programs."""
    text = (
        "a pixel may have several classes: label files have one mask per class, and each class is predicted separately"
    )
    parser.add_argument("--use_multilabel", action="store_true", help=text)


def add_config(parser: argparse.ArgumentParser, help: str = "YAML configuration", **options) -> None:
    """Adds --config, --opts, --custom_imports and --trust_config; `make_config` reads them.

    Args:
        help: what the configuration is for.
        options: further arguments of `add_argument` for --config.
    """
    options.setdefault("required", True)
    text = f"{help}: a file, or a name that `paddle-dnl configs` lists"
    parser.add_argument("--config", help=text, **options).completer = _complete_config
    add_overrides(parser)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Adds --opts, --custom_imports and --trust_config, for programs whose configuration is a positional argument."""
    parser.add_argument("--opts", nargs="+", metavar="KEY=VALUE", help="replace values of the configuration")
    parser.add_argument(
        "--custom_imports", nargs="+", metavar="MODULE", help=".py files and modules that register your components"
    )
    parser.add_argument(
        "--trust_config", action="store_true", help="also import the modules that the configuration names"
    )


def add_export_imports(parser: argparse.ArgumentParser) -> None:
    """--custom_imports of programs that run an exported folder; `user_code.import_for_export` follows it."""
    text = ".py files and modules that define transforms of the model"
    parser.add_argument("--custom_imports", nargs="+", default=[], metavar="MODULE", help=text)


def make_config(args: argparse.Namespace, path=None, **replacements):
    """Creates the `Config` that the flags of `add_config` describe.

    Args:
        args: parsed flags.
        path: path of the configuration; default: `--config`.
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
    """Completions for argcomplete: configurations of the model zoo and YAML files."""
    from paddle_dnl.config.lookup import zoo_configs

    from argcomplete.completers import FilesCompleter

    return [name for name in zoo_configs() if name.startswith(prefix)] + list(FilesCompleter(("yml", "yaml"))(prefix))


def add_common(parser: argparse.ArgumentParser, precisions: tuple[str, ...] = ("fp32", "fp16", "bf16")) -> None:
    """Adds --config, --opts, --device, --precision, --amp_level and --data_format."""
    add_config(parser)
    parser.add_argument("--device", choices=DEVICES, help="default: gpu if available, else cpu")
    parser.add_argument("--precision", choices=precisions, default="fp32", help="arithmetic of the model")
    parser.add_argument(
        "--amp_level",
        choices=("O1", "O2"),
        default="O1",
        help="with fp16 and bf16: O1 keeps the weights in float32, O2 converts them",
    )
    parser.add_argument(
        "--data_format",
        choices=("NCHW", "NHWC"),
        default="NCHW",
        help="NHWC: the backbone's half-precision convolutions in channels-last layout, on GPUs with tensor cores; files, inputs "
        "and outputs are the same; not tested on a GPU",
    )


def add_augmented(parser: argparse.ArgumentParser, switch: str) -> None:
    """Adds flags of sliding windows and test-time augmentation; None where not given, see `test_settings`."""
    either = {"action": argparse.BooleanOptionalAction}
    parser.add_argument(
        f"--{switch}", **either, help="augment with scales and flips; implied by --scales and --flip_..."
    )
    parser.add_argument(
        "--scales", nargs="+", type=float, help="scales of the augmentation; default: from test_config, else 1.0"
    )
    parser.add_argument("--flip_horizontal", **either, help="also predict images that are flipped left to right")
    parser.add_argument("--flip_vertical", **either, help="also predict images that are flipped upside down")
    parser.add_argument("--is_slide", **either, help="sliding windows of --crop_size at steps of --stride")
    parser.add_argument("--crop_size", nargs=2, type=int, metavar=("W", "H"), help="size of the windows in pixels")
    parser.add_argument("--stride", nargs=2, type=int, metavar=("W", "H"), help="step of the windows in pixels")
    parser.add_argument(
        "--average",
        choices=AVERAGES,
        help="how scales and flips are averaged: as in PaddleSeg (logits, the default), mmsegmentation and DGMN2 "
        "(softmax), or the DNL authors' code (official)",
    )


def add_geotiff(parser: argparse.ArgumentParser) -> None:
    """Adds --geotiff, which writes label maps with the georeference of their pictures."""
    parser.add_argument(
        "--geotiff",
        action="store_true",
        help="for GeoTIFFs: also write geotiff/NAME.tif with the picture's transform and reference system",
    )


def select_device(device: str | None) -> str:
    """Sets Paddle's current device and returns its name.

    Args:
        device: name of the device; None: a GPU if available, else the CPU.

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
    """Returns arguments of `evaluate` and `predict`: `test_config`, replaced by the flags that were given.

    A scale or flip on the command line enables the augmentation. PaddleSeg ignores it without the switch and reports
    the score of a plain evaluation.

    Args:
        args: flags of `add_augmented`; None where a flag was not given.
        config: a `paddle_dnl.config.Config`.
        switch: `aug_eval` or `aug_pred`, the flag that enables scales and flips.

    Raises:
        UsageError: --is_slide without --crop_size and --stride, or scales and flips with the switch off.
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
            f"--{switch} changes nothing: neither flags nor test_config give scales or flips; add, for example, "
            "--scales 0.75 1.0 1.25 --flip_horizontal"
        )
    return settings


def _effective(settings: dict) -> list[str]:
    """Returns the names of the scales and flips in `settings` that change the result."""
    plain = {"scales": (None, 1.0, [1.0])}
    return [name for name in _AUGMENTATIONS if settings.get(name) not in plain.get(name, (None, False))]


def require_model_path(args: argparse.Namespace) -> str:
    """Returns --model_path, without which random weights would be evaluated or exported.

    Raises:
        UsageError: the flag is missing.
    """
    if not args.model_path:
        raise UsageError("--model_path is required: the .pdparams or .safetensors file of trained weights")
    return args.model_path
