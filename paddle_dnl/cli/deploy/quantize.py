# SPDX-License-Identifier: Apache-2.0
"""Command line of tools/quantize.py: quantizes an exported ONNX model to int8, and compares accuracy and speed."""

import argparse
import shutil
from pathlib import Path

from paddle_dnl import user_code
from paddle_dnl.cli._arguments import add_export_imports, require_at_least


def make_parser() -> argparse.ArgumentParser:
    """Creates the parser of quantize.py."""
    parser = argparse.ArgumentParser(
        description="Quantizes the ONNX graph of an exported model to 8 bits for ONNX Runtime and OpenVINO on CPUs "
        "(static post-training quantization); prints accuracy and speed of both. Attention logits and classifier stay in float."
    )
    add = parser.add_argument
    add("--config", required=True, help="deploy.yaml of the exported folder (export.py --format onnx), or the folder")
    add_export_imports(parser)
    add(
        "--image_list",
        required=True,
        help="list file with an image per line, for calibration: images like those of the training",
    )
    add(
        "--eval_list",
        help="list file with an image and, for mIoU, a label per line, for the comparison; default: --image_list",
    )
    add("--save_dir", help="write a copy of the folder; default: change the folder itself")
    add("--num_calibration", type=int, default=32, help="number of images of --image_list to use, evenly spaced")
    add("--num_eval", type=int, default=100, help="number of images of --eval_list to compare, evenly spaced")
    add("--cpu_threads", type=int, help="threads of both models; default: OMP_NUM_THREADS, else the number of cores")
    return parser


def parse_args(argv=None) -> argparse.Namespace:
    """Parses and checks the flags.

    Raises:
        UsageError: invalid values; names the flag.
    """
    args = make_parser().parse_args(argv)
    require_at_least(args, 1, "num_calibration", "num_eval", "cpu_threads")
    return args


def main(argv=None) -> int:
    """Quantizes, compares and records the results; returns the exit status."""
    args = parse_args(argv)
    from dataclasses import asdict, replace

    from paddle_dnl.data.images.image_files import find_pairs
    from paddle_dnl.deployment.export import install, int8
    from paddle_dnl.deployment.export.image_check import ImageScore, ScoredImages, evenly_sampled, score_in_process
    from paddle_dnl.deployment.runtime.backends.onnx_backend import OnnxBackend
    from paddle_dnl.deployment.runtime.backends.openvino_backend import openvino_version
    from paddle_dnl.deployment.runtime.deploy_config import FILE_NAME, INT8_NAME
    from paddle_dnl.deployment.runtime.deploy_yaml import read_deploy_config, write_deploy_config
    from paddle_dnl.deployment.runtime.options import BackendOptions, default_threads
    from paddle_dnl.deployment.runtime.predictor import Predictor
    from paddle_dnl.log import logger

    user_code.import_for_export(args.custom_imports)
    calibration = [image for image, _ in evenly_sampled(find_pairs(args.image_list), args.num_calibration)]
    evaluation = evenly_sampled(find_pairs(args.eval_list or args.image_list), args.num_eval)
    files = read_deploy_config(args.config)
    read = [args.image_list, args.eval_list, *calibration, *(path for pair in evaluation for path in pair)]
    others = [name for name in files.file_names if name != INT8_NAME]
    copied = others
    if Path(args.save_dir or files.folder).resolve() == files.folder.resolve():
        copied, names = [], [INT8_NAME]  # deploy.yaml is read, extended and written
    else:
        files.check_files(*copied)
        read += [files.folder / name for name in (*copied, FILE_NAME)]
        names = [*copied, *install.EXPORT_FILES]
    place = install.prepare_folder(args.save_dir or files.folder, read, names)
    threads = args.cpu_threads or default_threads()
    plain = Predictor(files.folder, backend="onnxruntime", cpu_threads=threads)
    logger.info(f"calibrating on {len(calibration)} images of {args.image_list}")
    with install.temporary_folder(place) as work:
        export = work / "export"
        export.mkdir()
        int8.quantize(files, calibration, plain.preprocess, export / INT8_NAME)
        made = replace(files, folder=export, onnx_int8=INT8_NAME)
        options = BackendOptions(precision="int8", cpu_threads=threads)
        small = Predictor(files.folder, backend=OnnxBackend(made, options))
        shared = len({image for image, _ in evaluation} & set(calibration))
        note = f", {shared} of which were used for calibration" if shared else ""
        logger.info(f"comparing on {len(evaluation)} images{note}")
        classes = len(files.classes.names) if files.classes else 256
        images = ScoredImages(plain, evaluation, files, classes)
        report = int8.compare(images, plain, small, len(calibration), threads)
        # OpenVINO needs a complete folder, because it runs in another process.
        for name in others:
            (export / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files.folder / name, export / name)
        made.hash_files()
        write_deploy_config(made)
        scores = {"onnxruntime int8": ImageScore(report.images, report.agreement, report.miou_int8)}
        if openvino_version():
            found = score_in_process(images, made, "openvino", precision="int8", cpu_threads=threads)
            logger.info(f"openvino int8 on {found.images} images: {found.describe()}")
            scores["openvino int8"] = found
        precisions = files.verified.get("precisions", {}) | {name: asdict(score) for name, score in scores.items()}
        made.verified = {**files.verified, "int8": asdict(report), "precisions": precisions}
        write_deploy_config(made)
        for name in set(others) - set(copied):
            (export / name).unlink()
        install.install(export, place, names)
    logger.info(f"{place / INT8_NAME} written and recorded in deploy.yaml")
    print(report.table(), flush=True)
    return 0


if __name__ == "__main__":
    from paddle_dnl.cli._run import run

    run("paddle_dnl.cli.deploy.quantize")
