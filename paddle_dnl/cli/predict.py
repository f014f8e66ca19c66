# SPDX-License-Identifier: Apache-2.0
"""Command line of predict.py."""

import argparse
import functools

from paddle_dnl.cli import _arguments

UNDER_LAUNCH = "share"


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of predict.py: PaddleSeg's flags and further ones."""
    parser = argparse.ArgumentParser(description="Predicts images; writes label pictures and overlays.")
    _arguments.add_common(parser)
    parser.add_argument("--model_path", help=".pdparams or .safetensors file of trained weights")
    parser.add_argument("--image_path", required=True, help="an image, a folder, or a .txt list of images")
    parser.add_argument("--save_dir", default="./output/result", help="output folder")
    parser.add_argument(
        "--custom_color", nargs="+", type=int, metavar="N", help="R G B of class 0, R G B of class 1, ..."
    )
    parser.add_argument("--device_id", type=int, help="index of the GPU; default: from the launcher, else 0")
    _arguments.add_multilabel(parser)
    _arguments.add_augmented(parser, "aug_pred")
    parser.add_argument("--save_prob", **_arguments.SAVE_PROB)
    parser.add_argument("--value_range", **_arguments.VALUE_RANGE)
    _arguments.add_geotiff(parser)
    _arguments.add_shares(parser)
    return parser


def main(argv=None) -> int:
    """Predicts all images; returns the exit status."""
    args = make_parser().parse_args(argv)
    model_path = _arguments.require_model_path(args)
    from paddle_dnl.data.images.pending_images import Shard
    from paddle_dnl.errors import UsageError

    _arguments.select_device(args.device)
    if args.device == "gpu":
        import paddle

        # Without an index Paddle uses the GPU that the launcher assigned to this rank, or the first one.
        paddle.set_device("gpu" if args.device_id is None else f"gpu:{args.device_id}")
    config = _arguments.make_config(args, use_multilabel=args.use_multilabel, for_training=False)
    if not config.val_dataset_cfg:
        raise UsageError(f"{args.config} has no val_dataset, whose transforms are needed to preprocess the images")
    settings = _arguments.test_settings(args, config, "aug_pred")
    settings = {key: value for key, value in settings.items() if key not in ("auc_roc", "batch_size")}
    from paddle_dnl.evaluation.options import InferenceOptions
    from paddle_dnl.evaluation.predict import predict
    from paddle_dnl.models.build import build_model
    from paddle_dnl.profile.memory_plan import announce_picture
    from paddle_dnl.training import amp

    model = build_model(config, pretrained=model_path)
    amp.set_data_format(model, args.data_format, args.precision)
    channels, options = config.val_dataset_cfg.get("img_channels", 3), InferenceOptions.of(settings)

    @functools.cache  # once per size
    def announce(image: tuple[int, int], original: tuple[int, int]) -> None:
        announce_picture(model, image, original, channels, options)

    predict(
        model,
        config,
        args.image_path,
        args.save_dir,
        custom_color=args.custom_color,
        precision=args.precision,
        amp_level=args.amp_level,
        inputs=[*config.files, model_path],
        save_prob=args.save_prob,
        value_range=args.value_range,
        shard=Shard.of(args.shard),
        skip_existing=args.skip_existing,
        skip_bad_samples=args.skip_bad_samples,
        no_overlay=args.no_overlay,
        geotiff=args.geotiff,
        announce=announce,
        **settings,
    )
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.predict")
