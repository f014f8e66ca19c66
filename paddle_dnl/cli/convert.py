# SPDX-License-Identifier: Apache-2.0
"""Command line of tools/convert_weights.py: converts published weights of other projects.

    python tools/convert_weights.py --source mmseg --input dnl_r50-d8_512x1024_40k_cityscapes.pth \
        --config configs/dnlnet/mmseg/dnl_r50-d8_512x1024_40k_cityscapes.yml --output dnl_r50.safetensors
"""

import argparse
import json
from pathlib import Path

from paddle_dnl.cli import _arguments
from paddle_dnl.weights.convert import SOURCES

_PADDLE_FILES = (".pdparams", ".safetensors")


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of tools/convert_weights.py."""
    parser = argparse.ArgumentParser(description="Converts published weights to a model of this project.")
    parser.add_argument("--source", required=True, choices=SOURCES, help="project that published the file")
    parser.add_argument("--input", required=True, help=".pth (both formats), .pdparams or .safetensors")
    _arguments.add_config(parser, "configuration of the model that the weights are for")
    parser.add_argument(
        "--output",
        required=True,
        help=".safetensors (for sharing: it cannot contain code) or .pdparams file to write, beside NAME.conversion.json",
    )
    parser.add_argument(
        "--part",
        choices=("model", "backbone"),
        default="model",
        help="backbone: convert ImageNet weights, or the backbone of a segmentation model, for model.backbone.pretrained",
    )
    parser.add_argument(
        "--skip_classifier", action="store_true", help="keep the initial weights of the classifier, for other classes"
    )
    parser.add_argument("--skip_auxiliary", action="store_true", help="keep the initial weights of the auxiliary head")
    parser.add_argument(
        "--verify",
        help=".npz with the original model's `input` [B, 3, H, W] and `logits` [B, K, H, W] in float32 (or a "
        "golden case's out.npz beside its spec.json); nothing is written unless the converted model agrees",
    )
    return parser


def _report_path(output: Path) -> Path:
    """Returns `NAME.conversion.json`, because `NAME.json` may be the graph of an export."""
    return output.with_name(f"{output.stem}.conversion.json")


def main(argv=None) -> int:
    """Converts, optionally verifies, and writes weights and report; returns the exit status."""
    args = make_parser().parse_args(argv)
    from paddle_dnl.errors import CheckpointError, UsageError
    from paddle_dnl.files.atomic import new_file, write_text
    from paddle_dnl.files.outputs import check_outputs
    from paddle_dnl.files.problems import reason
    from paddle_dnl.log import logger
    from paddle_dnl.models.build import build_model
    from paddle_dnl.models.start_weights import read_any
    from paddle_dnl.weights.convert import ConversionError, convert_with_report
    from paddle_dnl.weights.convert.verification import compare_logits
    from paddle_dnl.weights.loading import load_weights, write_safetensors

    import paddle

    output = Path(args.output)
    if output.suffix not in _PADDLE_FILES:
        raise UsageError(f"--output {output}: the name must end in {' or '.join(_PADDLE_FILES)}")
    if output.is_dir():
        raise UsageError(f"--output {output}: is a folder; give a file name in it")
    config = _arguments.make_config(args)
    spec = args.verify and Path(args.verify).parent / "spec.json"
    check_outputs([output, _report_path(output)], [args.input, *config.files, args.verify, spec])
    if args.part == "backbone" and (args.verify or args.skip_classifier or args.skip_auxiliary):
        raise UsageError("--part backbone: a backbone has no logits, classes or auxiliary head; remove that flag")
    state = read_any(args.input)
    model = build_model(config)
    options = {"skip_classifier": args.skip_classifier, "skip_auxiliary": args.skip_auxiliary}
    try:
        converted, report = convert_with_report(state, args.source, model, part=args.part, **options)
    except ConversionError as error:
        raise ConversionError(f"{args.input}: {error}") from None
    target = model.backbone if args.part == "backbone" else model
    load_weights(target, converted, what=args.input)
    logger.info(f"{args.input}: {report}")
    account = {"input": Path(args.input).name, "config": Path(args.config).name, **report.as_dict()}
    if args.verify:
        account["verified"] = compare_logits(model, Path(args.verify))
        logger.info(f"{args.verify}: logits agree, {account['verified']}")
    tensors, path, report_path = target.state_dict(), output, _report_path(output)
    try:
        with new_file(path) as temporary:
            if path.suffix == ".safetensors":
                write_safetensors({key: value.numpy() for key, value in tensors.items()}, temporary)
            else:
                paddle.save(tensors, str(temporary))
        path = report_path  # written last, so that a report exists only with its weights
        write_text(path, json.dumps(account, indent=1) + "\n")
    except (OSError, ValueError, RuntimeError) as error:  # the latter two from paddle.save for a full disk
        raise CheckpointError(f"{path}: could not be written ({reason(error, path)})") from error
    logger.info(f"Weights written to {output}, the report on each tensor to {report_path}")
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.convert")
